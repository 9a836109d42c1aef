from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.platform import Platform
from tests.worker.platform import platform as make_platform


@pytest.fixture
def platform(database_url: str, redis_url: str, home: Path) -> Iterator[Platform]:
    yield from make_platform(database_url, redis_url, home)

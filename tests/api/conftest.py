"""`api`: a running API for one module, with its own database and NANOCHAT_HOME."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.standalone.valkey import Valkey
from tests.api.server import Api, serving


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(module_database_url, valkey.url, tmp_path_factory.mktemp("home")) as running:
        yield running

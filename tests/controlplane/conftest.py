from __future__ import annotations

import pytest

from controlplane.db import SessionFactory
from tests.controlplane.ledger import Ledger


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)

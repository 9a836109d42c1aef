"""A running API, one per test module, with a worker that tests play themselves and the environment that the command reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.standalone.valkey import Valkey
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api, serving


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(module_database_url, valkey.url, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


@pytest.fixture
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_URL", api.url)
    monkeypatch.setenv("NANOCHAT_API_KEY", api.key)
    monkeypatch.setenv("NANOCHAT_HOME", str(api.home))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

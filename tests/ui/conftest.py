"""The real dashboard with a real control API and a real inference service behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from nanochat.contract.contract import Artifact, seal
from nanochat.model import GPTConfig
from services.inference.source import promoted
from services.standalone.valkey import Valkey
from services.ui.access.sessions import Sessions
from services.ui.app import create_app
from services.ui.platform import Platforms
from tests.api.server import Api
from tests.api.server import serving as serving_api
from tests.browser import browser as browser
from tests.inference import heart
from tests.inference.conftest import made_tokenizer
from tests.inference.server import Server, wait_for
from tests.inference.server import serving as serving_inference
from tests.ui.manual_worker import ManualWorker


@dataclass(frozen=True)
class Site:
    """The three services, and what a test needs to make a run progress."""

    url: str
    api: Api
    inference: Server
    folder: Path
    trained: dict[tuple[str, str], Artifact]

    def submit(self, name: str) -> ManualWorker:
        """Submit a run whose stages the test then works on by hand. Its sft stage publishes a model that was really trained."""
        run = self.api.client().submit("tiny", name=name)
        return ManualWorker(self.api.ledger, run.id, self.folder / run.id, self.trained)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Artifact]:
    folder, tokenizer = tmp_path_factory.mktemp("trained"), made_tokenizer()
    tokenizer.save(folder / "tokenizer")
    sealed = seal(folder / "tokenizer", name="tokenizer", stage="tok_train")
    config = GPTConfig(sequence_len=1024, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=64)
    model = heart.learn(config, tokenizer).save(folder, 40, sealed.sha256)
    return {("tok_train", "tokenizer"): sealed, ("sft", "model"): model}


@pytest.fixture(scope="module")
def site(
    module_database_url: str,
    valkey: Valkey,
    trained: dict[tuple[str, str], Artifact],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        serving_api(module_database_url, valkey.url, folder / "home") as api,
        serving_inference(promoted(api.client()), api_url=api.url, api_key=api.key, poll_s=0.3) as inference,
        dashboard(api.url, inference.url) as url,
    ):
        yield Site(url, api, inference, folder, trained)


PATIENCE_MS = 60_000
SHOTS = Path(__file__).parents[1] / "artifacts" / "ui"


@pytest.fixture
def page(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a signed-in admin. The test fails when it asks another machine for anything. Of a test that fails a screenshot is kept."""
    elsewhere: list[str] = []
    failed = request.session.testsfailed
    with visiting(browser, site) as page:
        page.on("request", lambda r: None if r.url.startswith((site.url, "data:", "blob:")) else elsewhere.append(r.url))
        yield page
        if request.session.testsfailed > failed:
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / f"{request.node.name}.png", full_page=True)
    assert elsewhere == []


@contextmanager
def visiting(browser: Browser, site: Site, key: str | None = None, **options: Any) -> Iterator[Page]:
    """A browser of its own in which somebody is signed in: the admin, unless `key` is given. `options` as of Browser.new_context."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    assert context.request.post(f"{site.url}/signin", data={"key": key or site.api.key}).ok
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield page
    context.close()


@contextmanager
def dashboard(api_url: str, inference_url: str) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(Platforms(api_url, inference_url), Sessions("a secret of the tests, long enough"), poll_s=0.5)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "started")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()

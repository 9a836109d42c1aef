"""Open pages while the services behind them crash and come back: they say so, keep what they show, and go on by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import Browser, expect

from nanochat.contract.contract import Artifact
from services.standalone.valkey import Valkey
from tests.browser import needs_chromium
from tests.ui.conftest import Site, visiting
from tests.ui.curves import begun, falling, figure, open_run, report
from tests.ui.service import Service, running

pytestmark = needs_chromium
NOTICES = {
    "ui": "The dashboard's server does not answer.",
    "api": "The control API does not answer.",
}


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, str], Artifact]:
    """No model is trained: nobody talks to one here."""
    return {}


@pytest.fixture(scope="module")
def services(
    site: Site, module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Service]]:
    """A second control API on the ledger of the site, and a dashboard before it, whose secret is in keys/session.key."""
    folder = tmp_path_factory.mktemp("services")
    home = str(site.api.home)
    with (
        running("api", folder, DATABASE_URL=module_database_url, REDIS_URL=valkey.url, HOME=home) as api,
        running("ui", folder, API_URL=api.url, INFERENCE_URL=site.inference.url, HOME=home) as ui,
    ):
        yield {"api": api, "ui": ui}


@pytest.mark.parametrize("crashed", ["ui", "api"])
def test_open_pages_go_on_after_a_service_has_crashed(
    browser: Browser, site: Site, services: dict[str, Service], crashed: str
) -> None:
    name, seen = f"outlives the {crashed}", replace(site, url=services["ui"].url)
    worker, work = begun(site, name)
    report(work, range(20), loss=falling, tok_per_s=lambda step: 5200.0)
    with visiting(browser, seen) as run:
        listed = run.context.new_page()
        listed.goto(seen.url)
        row = listed.get_by_role("row").filter(has_text=name)
        speed = row.locator("[data-column=speed]")
        expect(speed).to_have_text("5,200")
        open_run(run, seen, worker.run_id)
        expect(figure(run, "tokens/s")).to_have_text("5,200")
        asked: list[str] = []
        for page in (run, listed):
            page.evaluate("window.opened = true")
            page.on("request", lambda request: asked.append(request.url) if request.is_navigation_request() else None)

        services[crashed].kill()
        for page in (run, listed):
            banner = page.locator("#banner")
            expect(banner).to_contain_text(NOTICES[crashed])
            expect(banner).to_contain_text(re.compile(r"What you see is [1-9]\d* s old\."))
        expect(figure(run, "tokens/s")).to_have_text("5,200")
        expect(run.locator(".curve .u-over")).to_be_visible()
        expect(speed).to_have_text("5,200")

        late = run.context.new_page()  # opened while there is nothing to show
        if crashed == "api":
            late.goto(f"{seen.url}/runs/{worker.run_id}")
            expect(late.get_by_role("alert")).to_contain_text(NOTICES[crashed])

        report(work, range(20, 60), loss=lambda step: 1.5, tok_per_s=lambda step: 6100.0)
        services[crashed].start()
        for page in (run, listed):
            expect(page.locator("#banner")).to_be_empty()
        expect(figure(run, "tokens/s")).to_have_text("6,100")
        expect(run.locator(".curve .legend li", has_text="training loss").locator("b")).to_have_text("1.5")
        expect(speed).to_have_text("6,100")
        if crashed == "api":
            expect(late.get_by_role("heading", level=1)).to_have_text(name)
        report(work, range(60, 80), loss=lambda step: 1.25, tok_per_s=lambda step: 7200.0)  # and the streams are open again
        expect(figure(run, "tokens/s")).to_have_text("7,200")
        expect(speed).to_have_text("7,200")
        assert asked == [], "a page was loaded anew"
        for page in (run, listed):
            assert page.evaluate("window.opened")

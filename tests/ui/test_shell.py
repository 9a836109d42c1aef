"""What all static pages share: sign-in, navigation, the banner while a service is down, colours, accessibility."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from services.ui.assets import CHARTS, STATIC, Assets
from services.ui.pages import PAGES
from tests.browser import needs_chromium
from tests.ui.conftest import Site, visiting

pytestmark = needs_chromium


def test_a_visitor_signs_in_where_a_link_led_and_out_again(browser: Browser, site: Site) -> None:
    run = site.submit("linked")
    page = browser.new_context().new_page()
    page.goto(f"{site.url}/runs/{run.run_id}?tab=events")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("API key").fill("nc_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This key is unknown, expired or revoked.")
    page.get_by_label("API key").fill(f" {site.api.key} ")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="linked")).to_be_visible()
    assert page.url == f"{site.url}/runs/{run.run_id}?tab=events"
    assert site.api.key not in page.content()
    assert page.evaluate("document.cookie + JSON.stringify({...localStorage})").find(site.api.key) < 0
    page.locator("#account summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.context.close()


def test_a_revoked_key_leads_back_to_the_sign_in(browser: Browser, site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "for a while", "role": "viewer"}).json()
    with visiting(browser, site, made["secret"]) as page:
        page.goto(site.url)
        expect(page.get_by_role("heading", name="Runs")).to_be_visible()
        site.api.http.delete(f"/v1/keys/{made['id']}")
        page.reload()
        expect(page.get_by_text("your key is no longer valid")).to_be_visible()


def test_the_theme_is_kept(page: Page, site: Site) -> None:
    page.goto(site.url)
    before = page.locator("html").get_attribute("data-theme")
    page.locator("#account summary").click()
    page.get_by_role("button", name="Dark or light").click()
    page.reload()
    expect(page.locator("html")).not_to_have_attribute("data-theme", str(before))


@pytest.mark.parametrize(
    "path", ["/nothing", "/runs/r_1/log", "/runs/a%2Fb", "/chat/nothing", "/report/r_nobody", "/Leaderboard"]
)
def test_an_address_that_is_none_shows_a_page_that_says_so(page: Page, site: Site, path: str) -> None:
    answer = page.goto(site.url + path)
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing is at this address")
    expect(page.get_by_role("main")).to_contain_text(path)
    expect(page).to_have_title("Not found · nanochat")
    page.get_by_role("link", name="All runs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    assert page.request.get(site.url + path).json()["detail"]  # a program gets JSON


def test_the_address_of_a_run_without_its_end_leads_to_the_list(page: Page, site: Site) -> None:
    for path in ("/runs", "/runs/"):
        page.goto(f"{site.url}{path}?recipe=tiny")
        expect(page).to_have_url(f"{site.url}/?recipe=tiny")


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/runs/%ff", "No such run"),
        ("/runs/%00", "No such run"),
        ("/sweeps/%e2%82", "No such sweep"),
        ("/sweeps/s_1", "No such sweep"),
        ("/sweeps/%00", "No such sweep"),
        (f"/sweeps/{'s' * 300}", "No such sweep"),
        ("/new?from=nonsense", "No such run to clone"),
        ("/new?from=%00", "No such run to clone"),
    ],
)
def test_what_an_address_names_and_nobody_has_is_said_to_be_missing(page: Page, site: Site, path: str, title: str) -> None:
    page.goto(site.url + path)
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.locator("main section")).to_have_count(0)


def test_a_chat_without_models_says_so(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/chat")
    expect(page.locator("#chat-notice")).to_contain_text("No model to talk to yet")
    expect(page.locator("#send")).to_be_disabled()


def test_names_with_markup_are_text(page: Page, site: Site) -> None:
    hostile = "<img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>"
    run = site.submit(hostile[:100])
    page.goto(f"{site.url}/runs/{run.run_id}")
    expect(page.get_by_role("heading", level=1)).to_have_text(hostile[:100])
    assert page.title() != "hit"
    assert page.locator("main img").count() == 0


def test_every_imported_name_is_exported() -> None:
    """A browser refuses the whole page otherwise."""
    root = STATIC / "js"
    for path in root.rglob("*.js"):
        for names, source in re.findall(r'import\s*\{([^}]*)\}\s*from\s*"(\.[^"]+)"', path.read_text(encoding="utf-8")):
            target = (path.parent / source).resolve()
            if target.is_relative_to(root):
                text = target.read_text(encoding="utf-8")
                for name in (part.split(" as ")[0].strip() for part in names.split(",") if part.strip()):
                    declared = rf"export\s+(?:async\s+)?(?:function\*?|const|let|class)\s+{re.escape(name)}\b|export\s*\{{[^}}]*\b{re.escape(name)}\b"
                    assert re.search(declared, text), f"{path.relative_to(root)} imports {name}, which {source} does not export"


def test_assets_are_compressed_kept_for_ever_and_light(site: Site) -> None:
    assets = Assets()
    for page in PAGES:
        scripts = {*assets.imports("js/start.js"), *assets.imports(f"js/pages/{page.script}.js"), "app.css"}
        weight = sum(len(assets.files[name].zipped) for name in scripts)
        assert weight < 82_000, f"{page.path} weighs {weight:,} bytes compressed"
    assert b"MIT Licensed" in assets.files[CHARTS].body
    answer = httpx.get(site.url + assets.url("js/start.js"), headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "immutable" in answer.headers["cache-control"]
    assert httpx.get(f"{site.url}/assets/older/js/start.js").headers["cache-control"] == "no-store"
    for missing in ("nothing.js", "../../app.py", "%2e%2e/app.py"):
        assert httpx.get(f"{site.url}/assets/{assets.version}/{missing}").status_code in (401, 404)


def test_figures_have_four_digits_and_thousands_a_comma(page: Page, site: Site) -> None:
    page.goto(site.url)
    figures = [0, 0.021184, 999.4, 999.97, 1234, 5763.6, -5763.6, 9999.9, 12_345, 1_234_567]
    shown = page.evaluate(
        """async (all) => {
          const script = document.querySelector("script[data-page]").src;
          const { number } = await import(new URL("./format.js", script).href);
          return all.map((x) => number(x));
        }""",
        figures,
    )
    assert shown == ["0", "0.02118", "999.4", "1,000", "1,234", "5,764", "-5,764", "10,000", "12.35k", "1.235M"]

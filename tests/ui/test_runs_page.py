"""The list of runs in a real Chromium: live rows, search, filters, sorting, selection and what can be done with it, keyboard, a phone."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, CDPSession, Locator, Page, expect
from sqlalchemy import text

from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site, visiting

pytestmark = needs_chromium
ANSWERED_MS = 300
MANY = 1000

# A cancelled run and its stages over and over, as if many had been submitted: the ledger's own way takes 20 ms for each.
COPIES = (
    """INSERT INTO run SELECT (jsonb_populate_record(r, jsonb_build_object('id', 'r_' || lpad(to_hex(n), 16, '0'), 'name', 'copy ' || n,
       'created_at', r.created_at - n * interval '1 minute'))).* FROM run r, generate_series(1, :many) n WHERE r.id = :id""",
    """INSERT INTO stage SELECT (jsonb_populate_record(s, jsonb_build_object('id', nextval(pg_get_serial_sequence('stage', 'id')),
       'run_id', 'r_' || lpad(to_hex(n), 16, '0')))).* FROM stage s, generate_series(1, :many) n WHERE s.run_id = :id""",
)

# The order matters: the first test needs a platform without runs, and the last one makes a thousand.


def row(page: Page, name: str) -> Locator:
    return page.locator(".runs tbody tr").filter(has=page.get_by_role("link", name=name, exact=True))


def names(page: Page) -> list[str]:
    return page.locator(".runs tbody .run-name").all_text_contents()


def select(page: Page, *chosen: str) -> None:
    for name in chosen:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()


def busy_ms(devtools: CDPSession) -> float:
    return next(1000 * m["value"] for m in devtools.send("Performance.getMetrics")["metrics"] if m["name"] == "TaskDuration")


def test_an_empty_list_shows_how_to_start_the_first_run(page: Page, site: Site) -> None:
    page.goto(site.url)
    expect(page.locator("#no-runs")).to_contain_text("nanochat submit tiny --watch")
    expect(page.locator("#no-runs")).to_contain_text("/v1/runs")
    expect(page.get_by_role("link", name="Start the first run")).to_have_attribute("href", "/new?recipe=tiny")
    expect(page.get_by_role("table")).to_have_count(0)


def test_rows_change_in_place_while_a_run_goes_on(page: Page, site: Site) -> None:
    worker = site.submit("live <i>run</i>")
    page.goto(site.url)
    shown = row(page, "live <i>run</i>")
    expect(shown.locator("[data-status=QUEUED]")).to_have_text("Queued")
    shown.get_by_role("link").focus()
    page.evaluate("window.kept = document.activeElement")
    worker.finish("data", "tok_train", "tok_eval")
    work = worker.begin("base_train")
    work.train(steps=30, total=120)
    expect(shown.locator("[data-status=RUNNING]")).to_have_text("Running")
    expect(shown).to_contain_text("25 %")
    expect(shown.locator("[data-column=speed]")).to_have_text("5,229")
    expect(shown.locator("[data-column=bpb]")).to_have_text("2.5394")
    expect(shown.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d?$"))
    assert page.evaluate("window.kept === document.activeElement && window.kept.isConnected"), "the row was made anew"
    work.fail("the text ended too early")
    expect(shown.locator("[data-status=FAILED]")).to_have_text("Failed")
    expect(shown).to_contain_text("the text ended too early")
    assert "BAD_INPUT" not in page.locator("main").inner_text()


def test_search_filters_and_sorting_are_in_the_address(page: Page, site: Site) -> None:
    for name in ("b second", "a first"):
        site.submit(name)
    page.goto(site.url)
    expect(row(page, "a first")).to_be_visible()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Run")
    assert names(page)[:2] == ["a first", "b second"]
    page.keyboard.press("/")
    page.keyboard.type("second queued")
    expect(row(page, "a first")).to_have_count(0)
    page.locator("[data-filter=QUEUED]").click()
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("second queued")
    expect(page.locator("[data-filter=QUEUED]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Run")
    assert names(page) == ["b second"]
    page.get_by_role("searchbox").fill("nothing is called this")
    expect(page.get_by_role("heading", name="No run fits these filters")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(row(page, "a first")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/?sort=name")


def test_selected_runs_are_labelled_compared_archived_and_deleted(page: Page, site: Site) -> None:
    ids = {name: site.submit(name).run_id for name in ("over", "over too", "still going")}
    for name in ("over", "over too"):
        site.api.client().cancel(ids[name])
    page.goto(site.url)
    select(page, "over", "still going")
    compare = page.get_by_role("group", name="Selected runs").get_by_role("link", name="Compare")
    expect(compare).to_have_attribute("href", re.compile(r"^/compare\?(run=r_\w+&?){2}$"))
    expect(page.get_by_role("button", name="Archive", exact=True)).to_be_disabled()
    expect(page.get_by_text("Only runs that have ended can be deleted.")).to_be_visible()

    page.get_by_role("button", name="Labels…").click()
    page.get_by_label("Labels that all of them have").fill("nightly <b>")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("cannot be a label")
    page.get_by_label("Labels that all of them have").fill("nightly d4")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Changed the labels of 2 runs.")).to_be_visible()
    row(page, "over").get_by_role("button", name="nightly").click()
    expect(page.get_by_label("Label", exact=True)).to_have_value("nightly")
    expect(row(page, "over too")).to_have_count(0)
    page.goto(site.url)

    select(page, "over")
    page.get_by_role("button", name="Archive", exact=True).click()
    expect(page.get_by_text("Archived 1 run.")).to_be_visible()
    expect(row(page, "over")).to_have_count(0)
    page.get_by_label("Active or archived").select_option("Archived")
    expect(row(page, "over")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/?archived=1")
    page.goto(site.url)

    select(page, "over too")
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Back").click()
    expect(row(page, "over too")).to_be_visible()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("Deleted 1 run.")).to_be_visible()
    expect(row(page, "over too")).to_have_count(0)
    assert site.api.http.get(f"/v1/runs/{ids['over too']}").status_code == 404


def test_what_the_server_refuses_is_told_beside_the_list(page: Page, site: Site) -> None:
    worker = site.submit("ends meanwhile")
    site.api.client().cancel(worker.run_id)
    page.goto(site.url)
    select(page, "ends meanwhile")
    page.get_by_role("button", name="Delete…").click()
    site.api.http.delete(f"/v1/runs/{worker.run_id}")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.locator(".notice.bad")).to_contain_text("1 stayed as it was")


def test_the_list_is_walked_by_keyboard(page: Page, site: Site) -> None:
    for name in ("k1", "k2"):
        site.submit(name)
    page.goto(site.url)
    row(page, "k2").get_by_role("link").focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(row(page, "k1").get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="k1")).to_be_visible()
    page.go_back()
    expect(row(page, "k1")).to_be_visible()


def test_a_viewer_looks_and_changes_nothing(browser: Browser, site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "looks", "role": "viewer"}).json()
    with visiting(browser, site, made["secret"]) as page:
        page.goto(site.url)
        select(page, "k1")
        expect(page.get_by_role("button", name="Delete…")).to_be_disabled()
        expect(page.get_by_text("Your key may look but not change anything.")).to_be_visible()
        expect(page.get_by_role("link", name="New run")).to_have_count(0)


def test_nothing_is_wider_than_a_phone_and_axe_has_no_complaint(browser: Browser, site: Site) -> None:
    for options in ({"viewport": {"width": 390, "height": 844}}, {"color_scheme": "light"}, {"color_scheme": "dark"}):
        with visiting(browser, site, **options) as page:
            page.goto(site.url)
            select(page, "k1")
            wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, "the page is wider than the screen"
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
            assert found == [], [(v["id"], v["nodes"][0]["html"]) for v in found]


def test_a_long_label_fits_a_narrow_page(browser: Browser, site: Site) -> None:
    run = site.submit("labelled at length")
    site.api.http.patch(f"/v1/runs/{run.run_id}", json={"labels": ["l" * 63]}).raise_for_status()
    with visiting(browser, site, viewport={"width": 320, "height": 700}) as page:
        page.goto(site.url)
        expect(page.get_by_role("button", name="l" * 63)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_thousand_runs_answer_at_once(page: Page, site: Site) -> None:
    worker = site.submit("the original")
    site.api.client().cancel(worker.run_id)
    with site.api.ledger.begin() as session:
        for statement in COPIES:
            session.execute(text(statement), {"id": worker.run_id, "many": MANY})
    page.goto(site.url)
    expect(page.get_by_role("status").filter(has_text="runs")).to_contain_text(re.compile(r"^1,0\d\d runs$"))
    # The processor time of the page's thread, which the load of the machine does not change.
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    for action, done in (
        ("document.querySelector('th[data-column=name] button').click()", "copy 1"),
        (
            "const s = document.querySelector('input[type=search]'); s.value = 'copy 77'; s.dispatchEvent(new Event('input'))",
            "copy 77",
        ),
        ("document.querySelector('[data-filter=CANCELLED]').click()", "copy 77"),
        ("document.querySelector('th.pick input').click()", "copy 77"),
    ):
        before = busy_ms(devtools)
        page.evaluate(f"async () => {{ {action}; await new Promise((r) => requestAnimationFrame(() => setTimeout(r))); }}")
        took = busy_ms(devtools) - before
        assert took < ANSWERED_MS, f"{action} took {took:.0f} ms"
        assert done in names(page)
    page.get_by_role("searchbox").fill("")
    page.locator("[data-filter=CANCELLED]").click()
    before = len(names(page))
    assert before < 200, "all rows are in the page at once"
    page.mouse.move(600, 600)
    page.mouse.wheel(0, 50_000)
    wait_for(lambda: len(names(page)) > before, "more rows as one scrolls")

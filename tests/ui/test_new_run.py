"""The form of a new run in a real Chromium: fields from the schema, the plan beside it, errors beside their fields, the start."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site, visiting

pytestmark = needs_chromium
ACCEPTED = "This would be accepted"


def field(page: Page, path: str) -> Locator:
    return page.locator(f".recipe-field [name='{path}']").first


def test_only_what_differs_is_sent_and_the_run_is_started_once(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_role("link", name="Start the first run").click()
    expect(page.get_by_role("radio", name=re.compile("^tiny"))).to_be_checked()
    expect(page.get_by_text("4.19M parameters").first).to_be_visible()
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    expect(field(page, "base.num_iterations")).to_have_value("120")
    field(page, "base.num_iterations").fill("1,000")
    field(page, "sft.enabled").select_option("no")
    expect(page.get_by_role("heading", name="2 changes")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^Pretraining"))).to_contain_text("1,000")
    page.get_by_role("button", name="Undo the change of sft.enabled").click()
    expect(field(page, "sft.enabled")).to_have_value("true")
    expect(page.get_by_role("heading", name="1 change", exact=True)).to_be_visible()
    page.get_by_label("Name", exact=True).fill("<b>by hand</b>")
    page.get_by_label("Labels").fill("first d4")
    page.get_by_label("Budget (hours)").fill("2")
    sent: list[dict[str, object]] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if r.method == "POST" and r.url.endswith("/v1/runs") else None)
    page.evaluate(
        "() => { const go = document.querySelector('.new-run button[type=submit]'); go.click(); go.click(); go.form.requestSubmit(); }"
    )
    expect(page.get_by_role("heading", name="<b>by hand</b>")).to_be_visible()
    (run,) = site.api.client().runs()
    assert page.url == f"{site.url}/runs/{run.id}"
    assert len(sent) == 1
    assert sent[0]["overrides"] == {"base.num_iterations": 1000}
    found = site.api.http.get(f"/v1/runs/{run.id}").json()
    assert found["config"]["base"]["num_iterations"] == 1000
    assert sorted(found["labels"]) == ["d4", "first"]
    assert found["budget"]["max_hours"] == 2


def test_what_was_filled_in_is_there_after_signing_in_again(browser: Browser, site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "for a while", "role": "operator"}).json()
    with visiting(browser, site, made["secret"]) as page:
        page.goto(f"{site.url}/new")
        expect(page.get_by_text(ACCEPTED)).to_be_visible()
        field(page, "base.num_iterations").fill("77")
        page.get_by_label("Name", exact=True).fill("half filled in")
        page.get_by_label("Labels").fill("a b")
        expect(page.get_by_role("row", name=re.compile("^Pretraining"))).to_contain_text("77")
        page.wait_for_load_state("networkidle")  # so that starting the run is the first request that is refused
        site.api.http.delete(f"/v1/keys/{made['id']}").raise_for_status()
        page.get_by_role("button", name="Start the run").click()
        page.get_by_label("API key").fill(site.api.key)
        page.get_by_role("button", name="Sign in").click()
        expect(field(page, "base.num_iterations")).to_have_value("77")
        expect(page.get_by_label("Name", exact=True)).to_have_value("half filled in")
        expect(page.get_by_label("Labels")).to_have_value("a b")
        page.reload()
        expect(field(page, "base.num_iterations")).to_have_value("120")


def test_a_number_beyond_all_numbers_is_refused_and_not_taken_for_none(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/new")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    field(page, "base.num_iterations").fill("1e400")
    expect(page.get_by_text("Would be refused: 1 field is wrong.")).to_be_visible()
    expect(field(page, "base.num_iterations")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Text").click()
    page.get_by_label("Changes, one field").fill("base.num_iterations = -1e999")
    expect(page.get_by_text(re.compile("base.num_iterations: .*valid integer")).first).to_be_visible()


def test_a_run_that_was_started_without_its_labels_is_not_said_to_be_refused(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/new")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    before = len(list(site.api.client().runs()))
    page.get_by_label("Labels").fill(" ".join(f"l{i}" for i in range(51)))
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_text("At most 50 labels.")).to_be_visible()
    assert len(list(site.api.client().runs())) == before
    page.route("**/api/v1/runs/r_*", lambda route: route.fulfill(status=500, json={"title": "Broken"}))
    page.get_by_label("Labels").fill("kept")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_text("The run was started, but without its labels: Broken")).to_be_visible()
    page.unroute("**/api/v1/runs/r_*")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("tiny")
    assert len(list(site.api.client().runs())) == before + 1
    assert next(site.api.client().runs()).labels == ["kept"]


def test_what_is_wrong_stands_beside_its_field(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/new")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    field(page, "model.depth").fill("lots")
    wrong = page.locator(".field", has=page.locator("[name='model.depth']")).get_by_role("alert").first
    expect(wrong).to_contain_text("valid integer")
    expect(page.get_by_text("Would be refused: 1 field is wrong.")).to_be_visible()
    expect(page.get_by_text(ACCEPTED)).to_have_count(0)
    field(page, "model.depth").fill("4")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    expect(wrong).to_be_hidden()

    # A field in a group that is closed, and one that there is not.
    page.get_by_role("button", name="Text").click()
    page.get_by_label("Changes, one field").fill("base.warmdown_ratio = 7\nbase.nonsense = 1\nno sense")
    expect(page.get_by_text("Line 3: write field = value")).to_be_visible()
    page.get_by_label("Changes, one field").fill("base.warmdown_ratio = 7\nbase.nonsense = 1")
    expect(page.get_by_text("base.nonsense: unknown field")).to_be_visible()
    page.get_by_role("button", name="Form").click()
    page.get_by_role("button", name="Undo the change of base.nonsense").click()
    expect(field(page, "base.warmdown_ratio")).to_be_visible()
    expect(field(page, "base.warmdown_ratio")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_text("The run was not started")).to_be_visible()
    page.get_by_role("button", name="Undo the change of base.warmdown_ratio").click()
    page.get_by_label("Budget (US dollars)").fill("-3")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_text("A number greater than 0")).to_be_visible()


def test_fields_are_found_by_search(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/new")
    page.get_by_label("Search the fields").fill("warmdown ratio mid")
    expect(field(page, "mid.warmdown_ratio")).to_be_visible()
    expect(field(page, "base.warmdown_ratio")).to_be_hidden()
    field(page, "mid.warmdown_ratio").fill("0.5")
    expect(page.get_by_role("heading", name="1 change", exact=True)).to_be_visible()


def test_an_old_plan_is_grey_while_a_new_one_is_made(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/new")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    held: list[Route] = []
    page.route("**/v1/runs/plan", lambda route: held.append(route))
    field(page, "base.num_iterations").fill("5")
    expect(page.locator(".plan.outdated")).to_be_visible()
    expect(page.get_by_text(ACCEPTED)).to_have_count(0)
    wait_for(
        lambda: page.wait_for_timeout(50) or len(held) > 0, "the plan is asked for"
    )  # the browser tells while it is waited for
    page.unroute("**/v1/runs/plan")
    field(page, "base.num_iterations").fill("6")
    expect(page.get_by_text(ACCEPTED)).to_be_visible()
    expect(page.locator(".plan.outdated")).to_have_count(0)


def test_a_large_recipe_on_a_cpu_shows_its_absurd_hours(page: Page, site: Site) -> None:
    site.submit("brings a cpu worker")
    page.goto(f"{site.url}/new")
    page.get_by_role("radio", name=re.compile("^speedrun")).check()
    expect(page.get_by_role("region", name="Plan")).to_contain_text(re.compile(r"about [\d,.]+k? years"))
    expect(page.get_by_role("region", name="Plan").locator(".notice.warn")).to_contain_text("GPU")
    assert page.url == f"{site.url}/new?recipe=speedrun"


def test_a_run_is_cloned_with_its_changes(page: Page, site: Site) -> None:
    run = site.api.client().submit("tiny", {"base.num_iterations": 33, "chat_eval.tasks": ["sums"]}, "the first")
    page.goto(f"{site.url}/new?from={run.id}")
    expect(page.get_by_role("heading", name="Clone of the first")).to_be_visible()
    expect(page.get_by_role("heading", name="2 changes")).to_be_visible()
    expect(field(page, "base.num_iterations")).to_have_value("33")
    expect(page.get_by_label("Name", exact=True)).to_have_value("the first")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url(re.compile(r"/runs/r_"))
    clone = site.api.http.get(f"/v1/runs/{page.url.rsplit('/', 1)[1]}").json()
    assert clone["id"] != run.id
    assert clone["config"] == site.api.http.get(f"/v1/runs/{run.id}").json()["config"]


def test_a_viewer_sees_the_form_and_why_it_cannot_be_sent(browser: Browser, site: Site) -> None:
    made = site.api.http.post("/v1/keys", json={"name": "looks", "role": "viewer"}).json()
    with visiting(browser, site, made["secret"]) as page:
        page.goto(f"{site.url}/new")
        expect(page.get_by_text(ACCEPTED)).to_be_visible()
        expect(field(page, "base.num_iterations")).to_be_disabled()
        expect(page.get_by_text("it may look at plans but not start runs")).to_be_visible()
        expect(page.get_by_role("button", name="Start the run")).to_have_count(0)


def test_nothing_is_wider_than_a_phone_and_axe_has_no_complaint(browser: Browser, site: Site) -> None:
    for options in ({"viewport": {"width": 390, "height": 844}}, {"color_scheme": "light"}, {"color_scheme": "dark"}):
        with visiting(browser, site, **options) as page:
            page.goto(f"{site.url}/new")
            expect(page.get_by_text(ACCEPTED)).to_be_visible()
            page.get_by_label("Search the fields").fill("e")
            page.locator("#g-model [name='model.depth']").fill("0")
            expect(page.get_by_text("Would be refused")).to_be_visible()
            wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not wide, "the page is wider than the screen"
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
            assert found == [], [(v["id"], v["nodes"][0]["html"]) for v in found]

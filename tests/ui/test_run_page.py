"""The page of one run in Chromium: its head, pipeline and curves while it works, and what it says when something is wrong."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from controlplane.lifecycle import Reason
from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site, visiting
from tests.ui.curves import begun, falling, figure, open_run, range_of, report, stop
from tests.ui.manual_worker import ManualWorker

pytestmark = needs_chromium


def test_a_run_is_seen_from_the_list_to_its_end(page: Page, site: Site) -> None:
    worker = site.submit("watched")
    page.goto(site.url)
    page.get_by_role("link", name="watched").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("watched")
    worker.finish(*(stage["name"] for stage in site.api.http.get(f"/v1/runs/{worker.run_id}").json()["stages"]))
    expect(page.locator(".run-status [data-status=SUCCEEDED]")).to_be_visible()


def test_a_run_is_followed_without_losing_zoom_or_place(page: Page, site: Site) -> None:
    worker, work = begun(site, "followed")
    report(work, range(300), loss=falling, tok_per_s=lambda step: 5200.0)
    work.tell({"kind": "progress", "done": 300, "total": 1000, "unit": "step", "eta_s": 70.0})
    curve = open_run(page, site, worker.run_id)
    expect(page.get_by_role("heading", level=1)).to_have_text("followed")
    expect(page.locator(".run-status")).to_contain_text("Pretraining")
    expect(page.locator(".pipeline li", has_text="Pretraining")).to_contain_text("step 300 of 1,000")
    expect(figure(page, "tokens/s")).to_have_text("5,200")
    legend = page.locator(".curve .legend")
    expect(legend).to_contain_text("training loss")
    page.evaluate("window.node = document.querySelector('.curve canvas')")
    box = curve.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    page.mouse.move(5, 5)
    page.evaluate("scrollTo(0, 120)")
    seen = range_of(page)
    assert 60 < seen[0] < 90
    assert 140 < seen[1] < 160
    report(work, range(300, 340), loss=lambda step: 1.25, tok_per_s=lambda step: 6100.0)
    work.tell({"kind": "progress", "done": 340, "total": 1000, "unit": "step", "eta_s": 60.0})
    expect(figure(page, "tokens/s")).to_have_text("6,100")
    expect(page.locator(".curve .legend li", has_text="training loss").locator("b")).to_have_text("1.25")
    assert page.evaluate("window.node === document.querySelector('.curve canvas')")
    assert page.evaluate("scrollY") == 120
    assert range_of(page) == seen
    curve.dblclick()
    expect(page.get_by_role("button", name="Show all")).to_be_disabled()
    wait_for(lambda: range_of(page)[1] >= 339, "all is shown")


def test_all_plots_show_the_same_range_and_keys_move_it(page: Page, site: Site) -> None:
    worker, work = begun(site, "keys")
    report(work, range(400), loss=falling, tok_per_s=lambda s: 5000.0 + s % 7, grad_norm=lambda s: 0.4, lrm=lambda s: 1.0)
    open_run(page, site, worker.run_id)
    expect(page.locator(".small-plot:visible")).to_have_count(3)
    expect(page.locator("[role=tabpanel]")).to_contain_text("MFU is left out")
    chart = page.locator(".curve .plot-canvas")
    chart.focus()
    for key in ("+", "+", "ArrowRight"):
        chart.press(key)
    wait_for(lambda: range_of(page)[1] - range_of(page)[0] < 200, "zoomed twice")
    wait_for(lambda: range_of(page)[0] > 125, "moved")
    small = page.locator(".small-plot:visible .plot")
    small.last.scroll_into_view_if_needed()
    for i in range(small.count()):
        expect(small.nth(i)).to_have_attribute("data-from", page.locator(".curve .plot").get_attribute("data-from") or "")
    chart.press("0")
    expect(page.get_by_role("button", name="Show all")).to_be_disabled()


def test_the_curve_is_above_the_fold_in_both_themes_and_on_a_phone(browser: Browser, site: Site) -> None:
    worker, work = begun(site, "seen at once on a phone")
    report(work, range(200), loss=falling, val_bpb=lambda s: 1.5, tok_per_s=lambda s: 5200.0)
    for width, height, theme in ((1280, 800, "light"), (390, 844, "dark")):
        with visiting(browser, site, viewport={"width": width, "height": height}, color_scheme=theme) as page:
            box = open_run(page, site, worker.run_id).bounding_box()
            assert box is not None
            assert box["y"] + 0.6 * box["height"] < height, f"the curve begins at {box['y']:.0f} of {height}"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            serious = [
                (v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found if v["impact"] in ("serious", "critical")
            ]
            assert serious == []


@pytest.mark.parametrize("width", [320, 480, 640, 800])
def test_the_menu_of_a_run_opens_within_the_page(browser: Browser, site: Site, width: int) -> None:
    worker, _ = begun(site, "more")
    with visiting(browser, site, viewport={"width": width, "height": 800}) as page:
        page.goto(f"{site.url}/runs/{worker.run_id}")
        page.locator("summary", has_text="More").click()
        expect(page.get_by_role("button", name="Fork")).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_comes_back_to_the_menu_after_a_choice(page: Page, site: Site) -> None:
    run = site.submit("by keyboard")
    page.goto(f"{site.url}/runs/{run.run_id}")
    menu = page.locator("summary", has_text="More")
    menu.focus()
    for key in ("Enter", "Tab", "Escape"):
        page.keyboard.press(key)
    expect(menu).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Labels", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(menu).to_be_focused()


def test_axes_smoothing_and_other_runs_are_in_the_address(page: Page, site: Site) -> None:
    first, one = begun(site, "first of two")
    report(one, range(200), loss=falling)
    second, two = begun(site, "second of two")
    report(two, range(120), loss=lambda s: falling(s) + 1)
    open_run(page, site, first.run_id)
    page.get_by_role("button", name="Other runs").click()
    page.get_by_label("Search runs").fill("second of")
    page.get_by_role("checkbox", name="second of two").check()
    page.get_by_role("button", name="Done").click()
    legend = page.locator(".curve .legend")
    expect(legend).to_contain_text("second of two · loss")
    page.get_by_label("X axis").select_option("tokens")
    page.wait_for_url(lambda url: "x=tokens" in url and f"with={second.run_id}" in url)
    wait_for(lambda: range_of(page)[1] > 10_000, "the axis counts tokens")
    page.get_by_label("log y").check()
    page.reload()
    expect(legend).to_contain_text("second of two · loss")
    expect(page.get_by_label("X axis")).to_have_value("tokens")
    expect(page.get_by_label("log y")).to_be_checked()
    wait_for(lambda: range_of(page)[1] > 10_000, "the axis counts tokens")


def test_every_unit_has_its_own_axis(page: Page, site: Site) -> None:
    """SFT is validated in nats per token, which must not be read as bits per byte."""
    worker, base = begun(site, "units")
    report(base, range(60), loss=falling, val_bpb=lambda s: 1.1)
    base.succeed()
    worker.finish("base_eval", "mid_train", "chat_eval_mid")
    sft = worker.begin("sft")
    report(sft, range(60), loss=falling, val_loss=lambda s: 1.9)
    open_run(page, site, worker.run_id)
    titles = page.locator(".curve .plot-titles span")
    expect(titles).to_have_text(["nats per token", "validation bits per byte"])
    page.get_by_label("Stage", exact=True).select_option("sft")
    expect(titles).to_have_text(["nats per token"])
    expect(page.locator(".curve .legend")).to_contain_text("validation loss")


def test_the_labels_of_an_axis_tell_neighbours_apart(page: Page, site: Site) -> None:
    page.goto(site.url)
    divided = [[118.2, 118.4, 118.6], [49_900, 49_950, 50_000], [0, 0.1, 0.2, 0.1 * 3], [1e6, 1.05e6, None], [2000]]
    labels = page.evaluate(
        """async (divided) => {
          const script = new URL(document.querySelector("script[data-page]").dataset.page, location);
          const { labels } = await import(new URL("../chart/paint.js", script).href);
          return divided.map(labels);
        }""",
        divided,
    )
    assert labels == [
        ["118.2", "118.4", "118.6"],
        ["49.9k", "49.95k", "50k"],
        ["0", "0.1", "0.2", "0.3"],
        ["1M", "1.05M", ""],
        ["2,000"],
    ]


def test_a_stage_shows_its_attempts_and_its_last_lines(page: Page, site: Site) -> None:
    worker, work = begun(site, "tried twice")
    report(work, range(50), loss=falling)
    work.log("<b>step 49</b> | loss 7.0")
    stop(site, work, Reason.HOST_DRAIN, "Its worker shut down.")
    again = worker.begin("base_train")
    again.log("second attempt", "step 50 | loss 6.9")
    report(again, range(50, 90), loss=falling)
    open_run(page, site, worker.run_id)
    stage = page.get_by_role("button", name="Pretraining: ")
    expect(stage).to_contain_text("2 attempts")
    stage.click()
    detail = page.locator("#stage-detail")
    expect(detail.locator("tbody tr")).to_have_count(2)
    expect(detail.locator("tbody tr").last).to_contain_text("Its worker shut down.")
    expect(detail.locator("tbody tr").last).to_contain_text("HOST_DRAIN")
    expect(detail.locator("pre")).to_have_text("second attempt\nstep 50 | loss 6.9")
    assert "stage=base_train" in page.url
    page.reload()
    expect(detail.locator("tbody tr")).to_have_count(2)
    expect(page.locator(".pipeline li")).to_have_count(10)
    height = page.evaluate("document.querySelector('.pipeline').getBoundingClientRect().height")
    assert height < 70, "the stages are one line"


def test_nothing_to_draw_is_said_in_words(page: Page, site: Site) -> None:
    worker, work = begun(site, "without points")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    empty = page.locator(".curve .plot-empty")
    expect(empty).to_contain_text("No points yet")
    report(work, range(20), loss=lambda step: "nan")
    expect(empty).to_contain_text("NaN or infinite")
    report(work, range(20, 40), loss=lambda step: 5.0)
    expect(page.locator(".curve .u-over")).to_be_visible()
    expect(page.locator(".curve .plot-hint")).to_contain_text("✕ not finite")


def test_the_tab_of_metrics_says_which_curves_appear_when(page: Page, site: Site) -> None:
    worker, work = begun(site, "only its loss")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    tab = page.get_by_role("tabpanel")
    expect(tab).to_contain_text("No points yet. Each curve appears with the first step that reports it: training speed")
    report(work, range(20), loss=falling)
    expect(tab).to_contain_text("Training has reported none of the figures of this tab so far.")
    expect(tab).to_contain_text("on GPUs also model FLOPs utilization, peak memory")
    report(work, range(20, 40), loss=falling, lrm=lambda step: 1.0)
    expect(page.locator(".small-plot:visible")).to_have_count(1)
    expect(tab).not_to_contain_text("Each curve appears")


@pytest.mark.parametrize("width", [1024, 1280, 1440, 1920])
def test_no_name_of_a_stage_is_cut(browser: Browser, site: Site, width: int) -> None:
    """With all stages that a recipe may have, one at work and one that is tried again."""
    run = site.api.client().submit("tiny", {"rl.enabled": True}, name=f"all stages at {width}")
    worker = ManualWorker(site.api.ledger, run.id, site.folder / run.id, site.trained)
    worker.finish("data", "tok_train", "tok_eval", "base_train")
    stop(site, worker.begin("base_eval"), Reason.CRASHED, "Killed.")
    work = worker.begin("mid_train")
    work.tell({"kind": "progress", "done": 12_345, "total": 123_456, "unit": "step", "eta_s": 123_456.0})
    with visiting(browser, site, viewport={"width": width, "height": 900}) as page:
        page.goto(f"{site.url}/runs/{run.id}")
        stages = page.locator(".pipeline li")
        expect(stages.filter(has_text="Midtraining")).to_contain_text("step 12.35k of 123.5k")
        expect(stages).to_contain_text(["Data", "Tokenizer", "Tokenizer eval", "Pretraining", "Base eval", "Midtraining",
                                        "Chat eval (mid)", "SFT", "Chat eval (SFT)", "RL", "Chat eval (RL)", "Report"])  # fmt: skip
        strip = page.locator(".pipeline")
        cut = strip.evaluate(
            """(strip) => [strip, ...strip.querySelectorAll("*")]
              .filter((n) => getComputedStyle(n).display !== "inline" && (n.scrollWidth > n.clientWidth || n.scrollHeight > n.clientHeight))
              .map((n) => `${n.className} ${n.textContent}`)"""
        )
        assert cut == []
        box = strip.bounding_box()
        assert box is not None
        assert box["height"] < 70


def test_it_is_renamed_where_it_stands(page: Page, site: Site) -> None:
    worker = site.submit("old name")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    page.get_by_role("button", name="Rename this run").click()
    page.get_by_label("Name of the run").fill(" ")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".run-title .wrong")).to_be_visible()
    page.get_by_label("Name of the run").fill("<i>new</i> name")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("<i>new</i> name")
    assert page.title() == "<i>new</i> name · nanochat"
    assert site.api.client().run(worker.run_id).name == "<i>new</i> name"


def test_notes_written_in_two_tabs_at_once_are_not_lost(page: Page, site: Site) -> None:
    run = site.submit("twice described")
    page.goto(f"{site.url}/runs/{run.run_id}")
    page.locator("summary", has_text="More").click()
    page.get_by_role("button", name="Labels and notes").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Notes").fill("mine")
    there = f"/v1/runs/{run.run_id}"
    site.api.http.patch(there, json={"notes": "theirs <b>", "labels": ["new"]}).raise_for_status()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("They are now: “theirs <b>”. Save again to put yours in their place.")
    expect(dialog.get_by_label("Notes")).to_have_value("mine")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    kept = site.api.http.get(there).json()
    assert (kept["notes"], kept["labels"]) == ("mine", ["new"])


def test_it_is_paused_resumed_and_cancelled(page: Page, site: Site) -> None:
    worker = site.submit("to be steered")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    status, outcome = page.locator(".run-status"), page.locator(".outcome")
    page.get_by_role("button", name="Pause").click()
    expect(status).to_contain_text("Paused")
    expect(outcome).to_contain_text("Pausing")
    page.get_by_role("button", name="Resume").click()
    expect(outcome).to_contain_text("Resumed")
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("cannot go on")
    dialog.get_by_role("button", name="Back").click()
    assert site.api.client().run(worker.run_id).status != "CANCELLED"
    page.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the run").click()
    expect(status).to_contain_text("Cancelled")
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()


def test_a_failed_run_says_why_and_is_retried_and_forked(page: Page, site: Site) -> None:
    worker = site.submit("bad data")
    worker.begin("data").fail("x.parquet has no column `text`; name it")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    expect(page.locator(".run-status")).to_contain_text("Data: x.parquet has no column `text`; name it")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".outcome")).to_contain_text("queued again")
    expect(page.locator(".run-status [data-status=FAILED]")).to_have_count(0)
    page.get_by_text("More", exact=True).click()
    page.get_by_role("button", name="Fork").click()
    page.get_by_label("Name of the new run").fill("its fork")
    page.get_by_role("button", name="Fork the run").click()
    page.locator(".outcome").get_by_role("link", name="its fork").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("its fork")
    expect(page.get_by_role("link", name="forked from another run")).to_be_visible()


def test_a_viewer_only_looks(browser: Browser, site: Site) -> None:
    worker = site.submit("looked at")
    made = site.api.http.post("/v1/keys", json={"name": "looks", "role": "viewer"}).json()
    with visiting(browser, site, made["secret"]) as page:
        page.goto(f"{site.url}/runs/{worker.run_id}")
        expect(page.get_by_role("heading", level=1)).to_have_text("looked at")
        for name in ("Pause", "Cancel", "Rename this run"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)


@pytest.mark.parametrize("wanted", ["r_0123456789abcdef", "R_1", "<img src=x>", "%25", "no such name"])
def test_an_unknown_run_leads_to_the_list(page: Page, site: Site, wanted: str) -> None:
    site.submit("there")
    page.goto(f"{site.url}/runs/{wanted}")
    expect(page.get_by_role("heading", name="No such run")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.get_by_label("Search runs").fill("there")
    page.get_by_role("button", name="Search").click()
    page.locator(".plain-list").get_by_role("link", name="there").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("there")


def test_a_run_that_is_deleted_while_it_is_open(page: Page, site: Site) -> None:
    worker = site.submit("to be deleted")
    page.goto(f"{site.url}/runs/{worker.run_id}")
    expect(page.get_by_role("heading", level=1)).to_have_text("to be deleted")
    site.api.client().cancel(worker.run_id)
    expect(page.locator(".run-status")).to_contain_text("Cancelled")
    site.api.http.delete(f"/v1/runs/{worker.run_id}").raise_for_status()
    expect(page.get_by_role("heading", name="This run has been deleted")).to_be_visible()
    expect(page.get_by_role("link", name="All runs")).to_have_attribute("href", "/")


def test_the_points_can_be_read_and_kept(page: Page, site: Site, tmp_path: Path) -> None:
    worker, work = begun(site, '=cmd, "quoted"')
    report(work, range(30), loss=falling)
    open_run(page, site, worker.run_id)
    page.get_by_text("Values as a table").click()
    expect(page.locator(".curve-values tbody tr").first).to_contain_text("29")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    waiting.value.save_as(tmp_path / "curves.csv")
    rows = list(csv.DictReader((tmp_path / "curves.csv").open(newline="")))
    assert len(rows) == 30
    assert rows[7]["step"] == "7"
    assert math.isclose(float(rows[7]["last"]), falling(7))
    assert rows[0]["run_name"] == '\'=cmd, "quoted"'
    with page.expect_download() as waiting:
        page.get_by_role("button", name="PNG").click()
    waiting.value.save_as(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_it_recovers_when_the_api_was_away(page: Page, site: Site) -> None:
    worker, work = begun(site, "recovers")
    report(work, range(20), loss=falling)
    open_run(page, site, worker.run_id)
    page.route(
        "**/api/v1/**",
        lambda route: route.fulfill(status=502, json={"title": "Bad gateway", "detail": "The control API does not answer."}),
    )
    page.route("**/ready", lambda route: route.fulfill(json={"status": "degraded", "api": "unreachable"}))
    report(work, range(20, 30), loss=falling)
    expect(page.locator("#banner")).to_contain_text("does not answer")
    expect(page.locator(".curve .u-over")).to_be_visible()
    page.unroute("**/api/v1/**")
    page.unroute("**/ready")
    report(work, range(30, 90), loss=lambda step: 1.5)
    expect(page.locator("#banner")).to_be_empty()
    expect(page.locator(".curve .legend li", has_text="training loss").locator("b")).to_have_text("1.5")

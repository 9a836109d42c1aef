"""The page of one run in Chromium: its head, pipeline and curves while it works, and what it says when something is wrong."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from controlplane import claims
from controlplane.lifecycle import Reason
from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site, visiting
from tests.ui.manual_worker import ManualWorker, Work

pytestmark = needs_chromium


def begun(site: Site, name: str, stage: str = "base_train") -> tuple[ManualWorker, Work]:
    """A run that is at work on the stage."""
    worker = site.submit(name)
    before = ["data", "tok_train", "tok_eval", "base_train", "base_eval", "mid_train", "chat_eval_mid", "sft"]
    worker.finish(*before[: before.index(stage)])
    return worker, worker.begin(stage)


def report(work: Work, steps: range, **values: Callable[[int], float | str]) -> None:
    """Metric events of the steps, a tenth of a second apart, in batches."""
    since = time.time() - 0.1 * len(steps)
    events = [
        {"kind": "metric", "step": step, "t": since + 0.1 * i, "values": {key: of(step) for key, of in values.items()}}
        for i, step in enumerate(steps)
    ]
    for start in range(0, len(events), 5000):
        work.tell(*events[start : start + 5000])


def falling(step: int) -> float:
    return 2.0 + 6.0 * math.exp(-step / 300) + 0.05 * math.sin(step)


def open_run(page: Page, site: Site, run_id: str, query: str = "") -> Locator:
    """The page of the run, once its large curve is drawn."""
    page.goto(f"{site.url}/runs/{run_id}{query}")
    curve = page.locator(".curve .u-over")
    expect(curve).to_be_visible()
    return curve


def figure(page: Page, what: str) -> Locator:
    return page.locator(".run-facts > div", has=page.get_by_text(what, exact=True)).locator("dd")


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
    expect(page.locator(".pipeline li", has_text="Pretraining")).to_contain_text("300/1,000 step")
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


def range_of(page: Page) -> list[float]:
    """First and last x of the large curve."""
    shown = page.locator(".curve .plot")
    return [float(shown.get_attribute(name) or "nan") for name in ("data-from", "data-to")]


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
    _stop(site, work, Reason.HOST_DRAIN, "Its worker shut down.")
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


def test_a_run_of_100_000_points_pans_smoothly(page: Page, site: Site) -> None:
    worker, work = begun(site, "long")
    report(work, range(100_000), loss=falling)
    curve = open_run(page, site, worker.run_id)
    chart = page.locator(".curve .plot-canvas")
    chart.focus()
    chart.press("+")
    chart.press("+")
    expect(page.get_by_role("button", name="Show all")).to_be_enabled()
    box = curve.bounding_box()
    assert box is not None
    x, y = box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"]
    before = range_of(page)
    page.keyboard.down("Shift")
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate("""() => {
      window.frames_ = [];
      const until = performance.now() + 2000;
      const tick = (now) => { frames_.push(now); if (now < until) requestAnimationFrame(tick); };
      requestAnimationFrame(tick);
    }""")
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        x -= 2 if x > box["x"] + 40 else -0.6 * box["width"]
        page.mouse.move(x, y)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert range_of(page) != before
    times: list[float] = page.evaluate("frames_")
    took = sorted(b - a for a, b in pairwise(times))
    print(f"{len(took)} frames in 2 s, median {took[len(took) // 2]:.1f} ms, longest {took[-1]:.0f} ms")
    assert took[len(took) // 2] < 50  # 17 on an idle machine; tests share theirs


def test_a_zoomed_curve_shows_every_point(page: Page, site: Site, tmp_path: Path) -> None:
    worker, work = begun(site, "long and zoomed")
    report(work, range(100_000), loss=lambda step: "nan" if step == 49_900 else falling(step))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "from_step" in request.url else None)
    curve = open_run(page, site, worker.run_id)
    chart, hint = page.locator(".curve .plot-canvas"), page.locator(".curve .plot-hint")
    chart.focus()
    page.evaluate("window.node = document.querySelector('.curve canvas')")
    assert len(losses(page, tmp_path)) <= 1500
    for _ in range(14):
        chart.press("+")
    wait_for(lambda: 500 <= range_of(page)[1] - range_of(page)[0] < 700, "zoomed to some 500 steps")
    wait_for(lambda: has_all(page, tmp_path), "each step has its point")
    assert 49_900 in losses(page, tmp_path)  # the one that is not finite has its mark
    expect(hint).to_contain_text("✕ not finite")
    assert 1500 < len(losses(page, tmp_path)) < 4000  # the rest of the line stays as it was

    box = curve.bounding_box()
    assert box is not None
    x, y = box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"]
    before, told = range_of(page), len(asked)
    page.mouse.move(x, y)
    page.keyboard.down("Shift")
    page.mouse.down()
    for share in (0.6, 0.3, 0.05):
        page.mouse.move(box["x"] + share * box["width"], y)
        page.wait_for_timeout(350)  # a hand that holds still has not let go
    assert range_of(page)[0] > before[0] + 400
    assert len(asked) == told
    page.mouse.up()
    page.keyboard.up("Shift")
    wait_for(lambda: has_all(page, tmp_path), "each step where it was moved to has its point")
    report(work, range(100_000, 100_040), loss=lambda step: 1.25)
    page.mouse.move(5, 5)
    expect(page.locator(".curve .legend li", has_text="training loss").locator("b")).to_have_text("1.25")
    assert has_all(page, tmp_path)
    assert page.evaluate("window.node === document.querySelector('.curve canvas')")

    page.route("**/metrics?*from_step*", lambda route: route.fulfill(status=500, json={"title": "Broken"}))
    told = len(asked)
    with page.expect_request("**/metrics?*from_step*"):
        chart.press("Home")
    wait_for(lambda: len(losses(page, tmp_path)) <= 1540, "the buckets of the whole run are left")
    page.wait_for_timeout(1000)
    assert len(asked) <= told + 2  # of the large curve and of the small ones: nobody tries again
    expect(curve).to_be_visible()
    page.unroute("**/metrics?*from_step*")
    chart.press("ArrowRight")
    wait_for(lambda: has_all(page, tmp_path), "the next move asks again")
    chart.press("0")
    wait_for(lambda: len(losses(page, tmp_path)) <= 1540, "the finer points are dropped")


def losses(page: Page, folder: Path) -> list[int]:
    """The steps at which the loss is drawn, as the file with the points has them."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    waiting.value.save_as(folder / "curves.csv")
    with (folder / "curves.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["metric"] == "loss"]


def has_all(page: Page, folder: Path) -> bool:
    """Whether each step that the large curve shows has its own point."""
    first, last = range_of(page)
    return set(range(math.ceil(first), math.floor(last) + 1)) <= set(losses(page, folder))


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


def _stop(site: Site, work: Work, reason: Reason, message: str) -> None:
    with site.api.ledger.begin() as session:
        claims.finish(session, work.claim.fence, reason, message=message)
    wait_for(lambda: not _live(site, work), "stopped")


def _live(site: Site, work: Work) -> Any:
    stage = next(s for s in site.api.client().run(work.worker.run_id).stages if s.name == work.claim.stage)
    return stage.status in ("STARTING", "RUNNING", "STOPPING")

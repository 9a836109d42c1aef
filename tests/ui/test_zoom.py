"""The curves of a run where they are zoomed, in Chromium: along every axis, in a long run, and while attempts follow each other."""

from __future__ import annotations

import csv
import math
import time
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from controlplane.lifecycle import Reason
from nanochat.contract.contract import Artifact
from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site
from tests.ui.curves import begun, falling, open_run, range_of, report, stop

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, str], Artifact]:
    """No model is trained: nobody talks to one here."""
    return {}


T0 = (
    time.time() // 1 - 86_400
)  # when the first step of these runs was reported; what is 90 days old is deleted, also before it is read
LONG = 5000  # steps, more than the large curve has buckets


def test_points_count_whatever_the_clock_of_their_machine_says(page: Page, site: Site) -> None:
    worker, work = begun(site, "clock set back")
    report(work, range(300), since=T0, loss=falling)
    open_run(page, site, worker.run_id)
    report(work, range(300, 340), since=T0 - 3600, loss=lambda step: 1.25)
    expect(newest_loss(page)).to_have_text("1.25")
    stop(site, work, Reason.HOST_DRAIN, "Its worker shut down.")
    again = worker.begin("base_train", resumed_from_step=310)
    report(again, range(310, 330), since=T0 - 7200, loss=lambda step: 1.75)
    expect(newest_loss(page)).to_have_text("1.75")
    wait_for(lambda: range_of(page)[1] == 329, "what was repeated does not count")
    expect(page.locator(".curve .plot-hint")).to_contain_text("┆ resumed")


def test_points_after_a_clock_was_set_back_are_drawn_where_they_come_next(page: Page, site: Site) -> None:
    worker, work = begun(site, "set back by time")
    report(work, range(300), since=T0, loss=falling)
    report(work, range(300, 340), since=T0 - 3600, loss=falling)
    open_run(page, site, worker.run_id, "?x=time")
    wait_for(lambda: range_of(page) == pytest.approx([T0, T0 + 33.9], abs=0.01), "its 340 points follow each other")
    report(work, range(340, 350), since=T0 - 3596, loss=falling)
    wait_for(lambda: range_of(page)[1] == pytest.approx(T0 + 34.9, abs=0.01), "a point that comes now as well")
    stop(site, work, Reason.HOST_DRAIN, "Its worker shut down.")
    report(worker.begin("base_train", resumed_from_step=349), range(350, 360), since=T0 + 500, loss=falling)
    wait_for(lambda: range_of(page) == pytest.approx([T0, T0 + 500.9], abs=0.01), "a clock that is ahead counts as it is")


@pytest.mark.parametrize("axis", ["step", "tokens", "flops", "relative", "time"])
def test_an_attempt_that_repeats_steps_replaces_them_where_the_curve_is_zoomed(
    page: Page, site: Site, tmp_path: Path, axis: str
) -> None:
    worker, work = begun(site, f"resumed by {axis}")
    report(work, range(LONG), since=T0, loss=falling)
    open_run(page, site, worker.run_id, f"?x={axis}")
    page.evaluate("window.node = document.querySelector('.curve canvas')")
    chart = page.locator(".curve .plot-canvas")
    chart.focus()
    for _ in range(7):
        chart.press("+")
    clocked = axis in ("relative", "time")

    def zoomed_to() -> set[int]:
        """The steps of the first attempt that lie within what is shown."""
        series = site.api.http.get(f"/v1/runs/{worker.run_id}/metrics", params={"keys": "loss"}).json()["series"][0]
        began = site.api.client().run(worker.run_id).stages[3].started_at
        assert began is not None
        zero = {"relative": T0 - began.timestamp(), "time": T0}.get(axis, 0.0)
        per = 0.1 if clocked else series.get(f"{axis}_per_step", 1)
        first, last = range_of(page)
        return {step for step in range(LONG) if first <= zero + per * step <= last}

    wait_for(lambda: 300 < len(zoomed_to()) < 500, "zoomed to some 400 steps")
    wait_for(lambda: zoomed_to() <= set(losses(page, tmp_path)), "each of them has its own point")
    shown, steps = range_of(page), zoomed_to()
    assert {2400, 2500, 2600} < steps

    stop(site, work, Reason.HOST_DRAIN, "Its worker shut down.")
    again = worker.begin("base_train", resumed_from_step=2500)
    report(again, range(2501, 2551), since=T0 + 1000, loss=lambda step: 1.25)
    expect(newest_loss(page)).to_have_text("1.25")
    earlier, repeated = {step for step in steps if step <= 2500}, set(range(2501, 2551))
    wait_for(lambda: earlier <= set(losses(page, tmp_path)), "what counts of the first attempt has its points")
    beyond = {step: value for step, value in losses(page, tmp_path).items() if step > 2500}
    assert set(beyond.values()) == {1.25}
    assert beyond.keys() < repeated if clocked else beyond.keys() == repeated  # by the clock they lie outside of what is shown
    report(again, range(2551, 2900), since=T0 + 1005, loss=lambda step: 1.5)
    expect(newest_loss(page)).to_have_text("1.5")
    wait_for(lambda: (earlier if clocked else steps) <= set(losses(page, tmp_path)), "each step that is shown has its point")
    assert range_of(page) == shown
    assert page.evaluate("window.node === document.querySelector('.curve canvas')")

    stop(site, again, Reason.HOST_DRAIN, "Its worker shut down.")
    third = worker.begin("base_train", resumed_from_step=1000)
    report(third, range(1001, 1041), since=T0 + 2000, loss=lambda step: 1.75)
    expect(newest_loss(page)).to_have_text("1.75")
    assert max(losses(page, tmp_path)) == 1040, "nothing is left of what lies beyond"
    assert range_of(page) == shown
    chart.press("0")
    expect(page.get_by_role("button", name="Show all")).to_be_disabled()
    expect(newest_loss(page)).to_have_text("1.75")


def newest_loss(page: Page) -> Locator:
    """The value beside the name of the training loss, which is the newest while no pointer is on the plot."""
    return page.locator(".curve .legend li", has_text="training loss").locator("b")


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
    expect(newest_loss(page)).to_have_text("1.25")
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


def losses(page: Page, folder: Path) -> dict[int, float | None]:
    """The loss at the steps at which it is drawn, as the file with the points has them; None if it is not finite."""
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    waiting.value.save_as(folder / "curves.csv")
    with (folder / "curves.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "loss"]
    return {int(row["step"]): float(row["last"]) if row["last"] else None for row in rows}


def has_all(page: Page, folder: Path) -> bool:
    """Whether each step that the large curve shows has its own point."""
    first, last = range_of(page)
    return set(range(math.ceil(first), math.floor(last) + 1)) <= set(losses(page, folder))

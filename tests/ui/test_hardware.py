"""The charts of GPUs and machines on the page of a run, in Chromium."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Locator, Page, expect

from controlplane import hardware
from controlplane.hardware import MACHINE, Sample
from nanochat.contract.contract import Artifact
from tests.browser import needs_chromium
from tests.inference.server import wait_for
from tests.ui.conftest import Site
from tests.ui.manual_worker import Work

pytestmark = needs_chromium

GPU_CHARTS = {"GPU activity": "%", "GPU memory": "GiB", "GPU power": "W", "GPU temperature": "°C"}
HOST_CHARTS = {"CPU activity": "%", "Host memory": "GiB"}


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, str], Artifact]:
    """No model is trained: nobody talks to one here."""
    return {}


def sample(work: Work, since: float, count: int, *gpus: int, worker: str | None = None) -> None:
    """Samples of the machine and its GPUs, ten seconds apart; GPU n is at 90 + n per cent, 70 + n GiB, 600 + n W and 60 + n °C."""
    found = [Sample(since + 10 * i, gpu, 90.0 + gpu, 70.0 + gpu, 600.0 + gpu, 60.0 + gpu) for i in range(count) for gpu in gpus]
    found += [Sample(since + 10 * i, MACHINE, 12.5, 30.25) for i in range(count)]
    with work.worker.ledger.begin() as session:
        hardware.store(session, work.claim.fence, found, worker_id=worker)


# Whether a chart has pixels of a colour of the theme. Those at the edge of a line are translucent, but of its colour.
HAS_COLOUR = """(figure, name) => {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
  const wanted = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const canvas = figure.querySelector("canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 60 && wanted.every((c, n) => Math.abs(c - data[i + n]) < 12)) return true;
  return false;
}"""


def test_every_gpu_and_machine_has_its_line_with_units_and_more_of_them_come_by_themselves(page: Page, site: Site) -> None:
    worker = site.submit("on GPUs")
    worker.finish("data", "tok_train", "tok_eval")
    work = worker.begin("base_train")
    page.goto(f"{site.url}/runs/{worker.run_id}?tab=metrics")
    part = page.get_by_role("region", name="GPUs and machines")
    expect(part).to_contain_text("No samples of the hardware of this run yet.")
    expect(part.locator(".small-plot:visible")).to_have_count(0)

    since = time.time() - 600
    sample(work, since, 50, 0, 1)
    for title, unit in (GPU_CHARTS | HOST_CHARTS).items():
        expect(part.get_by_role("figure", name=title).locator(".plot-titles")).to_have_text(unit)
    legend = part.get_by_role("figure", name="GPU memory").locator(".legend li")
    expect(legend).to_have_text(["GPU 070", "GPU 171"])
    chart = part.get_by_role("figure", name="GPU memory")
    chart.scroll_into_view_if_needed()
    for colour, drawn in (("--c1", True), ("--c2", True), ("--c3", False)):
        wait_for(lambda c=colour, d=drawn: chart.evaluate(HAS_COLOUR, c) is d, f"{colour} in the chart: {drawn}")  # type: ignore[misc]
    expect(part.get_by_role("figure", name="CPU activity").locator(".legend li")).to_have_text(["manual-gpu12.5"])
    expect(part).to_contain_text("By the clock, whatever the x axis of the curves is.")

    sample(work, since, 50, 0, worker="second")
    expect(legend).to_have_text(["manual-gpu · GPU 070", "manual-gpu · GPU 171", "second · GPU 070"])

    work.train(steps=20)
    expect(page.locator(".curve .u-over")).to_be_visible()
    page.get_by_label("X axis").select_option(label="x: time")
    expect(part).to_contain_text("By the clock, with the zoom of the curves.")
    curve, power = page.locator(".curve .plot"), part.get_by_role("figure", name="GPU power")
    for name in ("data-from", "data-to"):
        wait_for(lambda n=name: edge(curve, n) == edge(power, n) > since + 500, f"{name} of the curve and the samples")  # type: ignore[misc]


def edge(chart: Locator, name: str) -> float:
    """An end of the range that a chart shows, 0 before it is drawn. A chart out of sight keeps the range that it had there."""
    chart.scroll_into_view_if_needed()
    return float(chart.get_attribute(name) or 0)


def test_a_run_on_a_cpu_has_charts_of_its_machine_and_one_without_samples_says_so(page: Page, site: Site) -> None:
    worker = site.submit("on a CPU")
    work = worker.begin("data")
    sample(work, time.time() - 60, 3)
    page.goto(f"{site.url}/runs/{worker.run_id}?tab=metrics")
    part = page.get_by_role("region", name="GPUs and machines")
    expect(part.locator(".small-plot:visible h3")).to_have_text([*HOST_CHARTS])
    expect(part).to_contain_text("No GPU was sampled.")

    other = site.submit("without samples")
    site.api.http.post(f"/v1/runs/{other.run_id}/cancel", json={}).raise_for_status()
    page.goto(f"{site.url}/runs/{other.run_id}?tab=metrics")
    expect(part).to_contain_text("No samples were taken of the hardware of this run.")

"""Runs that report curves, and what their page draws of them in Chromium."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from controlplane import claims
from controlplane.lifecycle import Reason
from tests.inference.server import wait_for
from tests.ui.conftest import Site
from tests.ui.manual_worker import ManualWorker, Work


def begun(site: Site, name: str, stage: str = "base_train") -> tuple[ManualWorker, Work]:
    """A run that is at work on the stage."""
    worker = site.submit(name)
    before = ["data", "tok_train", "tok_eval", "base_train", "base_eval", "mid_train", "chat_eval_mid", "sft"]
    worker.finish(*before[: before.index(stage)])
    return worker, worker.begin(stage)


def report(work: Work, steps: range, *, since: float | None = None, **values: Callable[[int], float | str]) -> None:
    """Metric events of the steps, a tenth of a second apart, in batches. The last one is now, unless the first one is at `since`."""
    since = time.time() - 0.1 * len(steps) if since is None else since
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


def range_of(page: Page) -> list[float]:
    """First and last x of the large curve."""
    shown = page.locator(".curve .plot")
    return [float(shown.get_attribute(name) or "nan") for name in ("data-from", "data-to")]


def stop(site: Site, work: Work, reason: Reason, message: str) -> None:
    with site.api.ledger.begin() as session:
        claims.finish(session, work.claim.fence, reason, message=message)
    wait_for(lambda: not is_live(site, work), "stopped")


def is_live(site: Site, work: Work) -> bool:
    stage = next(s for s in site.api.client().run(work.worker.run_id).stages if s.name == work.claim.stage)
    return stage.status in ("STARTING", "RUNNING", "STOPPING")

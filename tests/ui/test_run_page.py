"""The page of one run in Chromium: its head, its pipeline, what can be done with it, and what it says when there is no such run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
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


def _stop(site: Site, work: Work, reason: Reason, message: str) -> None:
    with site.api.ledger.begin() as session:
        claims.finish(session, work.claim.fence, reason, message=message)
    wait_for(lambda: not _live(site, work), "stopped")


def _live(site: Site, work: Work) -> Any:
    stage = next(s for s in site.api.client().run(work.worker.run_id).stages if s.name == work.claim.stage)
    return stage.status in ("STARTING", "RUNNING", "STOPPING")

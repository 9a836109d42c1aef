"""Pages and the dashboard's process in an hour of a live run: their memory stays what it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from controlplane import claims
from nanochat.contract.contract import Artifact
from services.api import feed
from services.api.runs import live
from tests.browser import needs_chromium
from tests.ui.conftest import Site, visiting
from tests.ui.curves import begun, falling, figure, open_run, report
from tests.ui.manual_worker import Work
from tests.ui.service import running

pytestmark = needs_chromium

WARM_UP, HOUR = 300, 3600  # steps, of one second each
AT_ONCE = 12  # steps that one commit tells
SPEED = 60  # of the clock of the pages
BEFORE = 4000  # steps that are there already, which the pages hold in buckets

# Timers and performance.now run SPEED times as fast. The watch over silent streams stays: the API keeps its own time.
FASTER = f"""(() => {{
  const [later, again, now] = [setTimeout, setInterval, performance.now.bind(performance)];
  window.setTimeout = (work, ms = 0, ...more) => later(work, ms > 20000 ? ms : ms / {SPEED}, ...more);
  window.setInterval = (work, ms = 0, ...more) => again(work, ms / {SPEED}, ...more);
  performance.now = () => now() * {SPEED};
}})()"""


@dataclass(frozen=True)
class Memory:
    """What a page holds after a garbage collection."""

    heap: int  # bytes of JavaScript objects
    nodes: int
    listeners: int


# An hour may add this much. Points that wait for the next buckets are 0.7 MB. A leak of one node or listener with each poll, or of the event
# of each step, is more.
POLLS = 150
MAY_GROW = Memory(heap=1_200_000, nodes=POLLS, listeners=POLLS)
PROCESS_MAY_GROW = 8 << 20  # bytes


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, str], Artifact]:
    """No model is trained: nobody talks to one here."""
    return {}


def test_an_hour_of_a_live_run_leaves_memory_as_it_was(
    browser: Browser, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "POLL_S", 0.05)
    monkeypatch.setattr(live, "POLL_S", 0.05)
    worker, work = begun(site, "an hour long")
    report(work, range(BEFORE), loss=falling, tok_per_s=float)
    home = str(site.api.home)
    with (
        running("ui", tmp_path, API_URL=site.api.url, INFERENCE_URL=site.inference.url, HOME=home) as ui,
        visiting(browser, replace(site, url=ui.url)) as run,
    ):
        run.context.add_init_script(FASTER)
        open_run(run, replace(site, url=ui.url), worker.run_id)
        runs = run.context.new_page()
        runs.goto(ui.url)
        asked: list[str] = []
        run.on("request", lambda request: asked.append(request.url))
        go_on(work, run, runs, BEFORE, WARM_UP)
        before, rss = [held(page) for page in (run, runs)], ui.rss()
        asked.clear()
        began = time.monotonic()
        go_on(work, run, runs, BEFORE + WARM_UP, HOUR)
        after = [held(page) for page in (run, runs)]
        grown = {page: less(new, old) for page, new, old in zip(("run", "runs"), after, before, strict=True)}
        process = ui.rss() - rss
        polls = sum(url.endswith(f"/runs/{worker.run_id}") for url in asked)
        took = time.monotonic() - began
        print(
            f"{took:.0f} s, {polls} polls of the run; {before}, then {grown}; process {rss >> 20} MiB, then {process >> 10} KiB"
        )
    assert polls > POLLS
    for page, more in grown.items():
        for one in fields(Memory):
            assert getattr(more, one.name) < getattr(MAY_GROW, one.name), f"{one.name} of the page {page} grew by {more}"
    assert process < PROCESS_MAY_GROW


def go_on(work: Work, run: Page, runs: Page, first: int, steps: int) -> None:
    """Tell the next steps, and wait until both pages show the last one."""
    for step in range(first, first + steps, AT_ONCE):
        events = [
            {"kind": "metric", "step": s, "values": {"loss": falling(s), "tok_per_s": s, "lrm": 1.0}}
            for s in range(step, step + AT_ONCE)
        ]
        work.tell(*events, {"kind": "progress", "done": step + AT_ONCE, "total": 100_000, "unit": "step", "eta_s": 60.0})
        if (step - first) % 60 == 0:
            work.log(f"step {step}")
            with work.worker.ledger.begin() as session:
                claims.renew(session, work.claim.fence)
        run.wait_for_timeout(100)  # so that there are as many polls on a fast machine
    last = f"{first + steps - 1:,}"
    expect(figure(run, "tokens/s")).to_have_text(last)
    expect(runs.locator("[data-column=speed]").filter(has_text=last)).to_be_visible()


def held(page: Page) -> Memory:
    page.wait_for_timeout(500)  # what is asked for at this moment arrives
    with devtools(page) as session:
        for _ in range(3):
            session.send("HeapProfiler.collectGarbage")
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        counted = session.send("Memory.getDOMCounters")
    return Memory(int(heap), counted["nodes"], counted["jsEventListeners"])


def less(a: Memory, b: Memory) -> Memory:
    return Memory(a.heap - b.heap, a.nodes - b.nodes, a.listeners - b.listeners)


@contextmanager
def devtools(page: Page) -> Iterator[CDPSession]:
    session = page.context.new_cdp_session(page)
    yield session
    session.detach()

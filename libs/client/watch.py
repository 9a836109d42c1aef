"""Shows a run while it is running: a live table on a terminal, otherwise one plain line per change."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from client.client import Client
from client.errors import Unreachable
from client.models import Catalog, Run, Stage
from client.text import SYMBOLS, RunTable, duration, number, seconds, status_text

POLL_S = 0.5
PATIENCE_S = 60.0  # gives up after the API has not answered for this long
PLAIN_EVERY_S = 15.0  # a running stage prints a line this often even if its status did not change


def watch(client: Client, run_id: str, *, console: Console | None = None, poll_s: float = POLL_S) -> str:
    """Show the run until it is finished. Returns its final status (SUCCEEDED, FAILED or CANCELLED).

    Raises ApiError (404: no such run), and Unreachable after the API has not answered for a minute.
    """
    console = console or Console()
    if console.is_terminal:
        return _live(client, run_id, console, poll_s)
    return _plain(client, run_id, console, poll_s)


def snapshots(client: Client, run_id: str, poll_s: float = POLL_S) -> Iterator[Run]:
    """Fetch the run every `poll_s` seconds. The last snapshot is of the finished run."""
    patiently = _patiently(poll_s)
    while True:
        run = patiently(client.run, run_id)
        yield run
        if run.is_finished:
            return
        time.sleep(poll_s)


def _patiently(poll_s: float) -> Retrying:
    """Repeats a call while the API does not answer, for a minute at most."""
    return Retrying(
        retry=retry_if_exception_type(Unreachable), stop=stop_after_delay(PATIENCE_S), wait=wait_fixed(poll_s), reraise=True
    )


def _live(client: Client, run_id: str, console: Console, poll_s: float) -> str:
    status, catalog = "", _patiently(poll_s)(client.catalog)
    with Live(console=console, auto_refresh=False) as live:
        for run in snapshots(client, run_id, poll_s):
            live.update(RunTable(run, catalog), refresh=True)
            status = run.status
    return status


def _plain(client: Client, run_id: str, console: Console, poll_s: float) -> str:
    status, seen, said_at = "", dict[str, str](), dict[str, float]()
    catalog = _patiently(poll_s)(client.catalog)
    for run in snapshots(client, run_id, poll_s):
        if run.status != status:
            status = run.status
            console.print(f"{run.id} {run.name}: {status_text(run)}", markup=False, highlight=False, soft_wrap=True)
        for stage in run.stages:
            state = f"{stage.status}#{len(stage.attempts)}"
            now = time.monotonic()
            due = (
                stage.progress is not None and stage.finished_at is None and now - said_at.get(stage.name, now) > PLAIN_EVERY_S
            )
            if seen.get(stage.name, "PENDING#0") != state or due:
                console.print(plain_line(stage, catalog), markup=False, highlight=False, soft_wrap=True)
                said_at[stage.name] = now
            seen[stage.name] = state
            said_at.setdefault(stage.name, now)
    return status


def plain_line(stage: Stage, catalog: Catalog) -> str:
    """One stage on one line: `  ▶ base_train RUNNING 40/100 step, loss 4.21, tok/s 10.2k, 35s left`."""
    parts = [stage.status]
    if stage.status == "SUCCEEDED":
        parts.append(f"in {duration(stage.started_at, stage.finished_at)}")
    elif (p := stage.progress) is not None and stage.finished_at is None:
        parts.append(f"{number(p.done)}/{number(p.total)} {p.unit}".rstrip())
    latest = [f"{metric.short} {number(stage.latest[metric.key])}" for metric in catalog.columns if metric.key in stage.latest]
    if stage.finished_at is None and stage.progress is not None and stage.progress.eta_s:
        latest.append(f"{seconds(stage.progress.eta_s)} left")
    if stage.message and stage.status in ("FAILED", "BACKOFF", "CANCELLED"):
        latest.append(stage.message)
    attempt = f" (attempt {len(stage.attempts)})" if len(stage.attempts) > 1 else ""
    return f"  {SYMBOLS.get(stage.status, '?')} {stage.name}{attempt} {' '.join(parts)}" + "".join(f", {x}" for x in latest)

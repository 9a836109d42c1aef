"""Shows a run, or the list of runs, live: redrawn on a terminal, otherwise one plain line per change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from client.client import Client
from client.looks import Looks
from client.models import Catalog, Run, RunSummary, Stage
from client.printable import clean
from client.text import SYMBOLS, RunTable, done_of, duration, number, runs_table, status_text, time_left

POLL_S = 0.5
LIST_EVERY_S = 2.0
PATIENCE_S = 60.0  # gives up after the API has not answered for this long
PLAIN_EVERY_S = 15.0  # a running stage prints a line this often even if its status did not change


class Watched(NamedTuple):
    """A run, and the names of its metrics."""

    run: Run
    catalog: Catalog


def watch(client: Client, run_id: str, *, console: Console | None = None, poll_s: float = POLL_S) -> str:
    """Show the run until it is finished. Returns its final status (SUCCEEDED, FAILED or CANCELLED).

    Raises ApiError (404: no such run), and Unreachable after the API has not answered for a minute.
    """
    console = console or Console()
    looks = looks_at(client, run_id, poll_s)
    return _live(looks, console) if console.is_terminal else _plain(looks, console)


def looks_at(client: Client, run_id: str, poll_s: float = POLL_S) -> Looks[Watched]:
    """The run again and again, until it is finished."""
    catalog = Catalog()

    def ask() -> Watched:
        nonlocal catalog
        if not catalog.metrics:
            catalog = client.catalog()
        return Watched(client.run(run_id), catalog)

    return Looks(client.base_url, ask, every_s=poll_s, is_last=lambda seen: seen.run.is_finished, patience_s=PATIENCE_S)


def watch_list(client: Client, console: Console, *, status: str | None, limit: int) -> None:
    """Show the newest runs until Ctrl-C (KeyboardInterrupt). While the API does not answer, the last list stays, with its age."""

    # Not `follow_runs`: that stream knows neither the filter nor the limit, and the ages in the list change without it.
    def ask() -> Sequence[RunSummary]:
        return client.runs_page(status=status, limit=limit).items

    looks = Looks(client.base_url, ask, every_s=LIST_EVERY_S)
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            shown: list[RenderableType] = _told(looks.silence(look))
            if look.seen is not None:
                shown.append(runs_table(look.seen) if look.seen else Text("No such runs."))
            live.update(Group(*shown), refresh=True)


def _told(silence: str) -> list[RenderableType]:
    return [Text(silence, style="yellow")] if silence else []


def _live(looks: Looks[Watched], console: Console) -> str:
    status = ""
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            shown = _told(looks.silence(look))
            if look.seen is not None:
                status = look.seen.run.status
                shown.append(RunTable(*look.seen))
            live.update(Group(*shown), refresh=True)
    return status


def _plain(looks: Looks[Watched], console: Console) -> str:
    status, silent, seen, said_at = "", False, dict[str, str](), dict[str, float]()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    for look in looks:
        if bool(look.silent_s) != silent:
            silent = not silent
            say(looks.silence(look) if silent else f"{looks.url} answers again")
        if look.seen is None:
            continue
        run, catalog = look.seen
        if run.status != status:
            status = run.status
            say(clean(f"{run.id} {run.name}: {status_text(run)}"))
        for stage in run.stages:
            state = f"{stage.status}#{len(stage.attempts)}"
            now = time.monotonic()
            due = (
                stage.progress is not None and stage.finished_at is None and now - said_at.get(stage.name, now) > PLAIN_EVERY_S
            )
            if seen.get(stage.name, "PENDING#0") != state or due:
                say(plain_line(stage, catalog))
                said_at[stage.name] = now
            seen[stage.name] = state
            said_at.setdefault(stage.name, now)
    return status


def plain_line(stage: Stage, catalog: Catalog) -> str:
    """One stage on one line: `  ▶ base_train RUNNING 40/100 step, loss 4.21, tok/s 10.2k, 35s left`."""
    parts = [stage.status]
    if stage.status == "SUCCEEDED":
        parts.append(f"in {duration(stage.started_at, stage.finished_at)}")
    elif stage.progress is not None and stage.finished_at is None:
        parts.append(done_of(stage.progress))
    latest = [f"{metric.short} {number(stage.latest[metric.key])}" for metric in catalog.columns if metric.key in stage.latest]
    if stage.finished_at is None and (left := time_left(stage)):
        latest.append(f"{left} left")
    if stage.message and stage.status in ("FAILED", "BACKOFF"):
        latest.append(clean(stage.message))
    attempt = f" (attempt {len(stage.attempts)})" if len(stage.attempts) > 1 else ""
    return f"  {SYMBOLS.get(stage.status, '?')} {stage.name}{attempt} {' '.join(parts)}" + "".join(f", {x}" for x in latest)

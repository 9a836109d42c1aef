"""Shows a run while it is running: a live table on a terminal, otherwise one plain line per change."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from client.client import Client
from client.errors import ApiError, ClientError, Unreachable
from client.models import Catalog, Run, Stage
from client.printable import clean
from client.text import SYMBOLS, RunTable, done_of, duration, number, runs_table, seconds, status_text, time_left
from client.transport import RETRIED

POLL_S = 0.5
PATIENCE_S = 60.0  # gives up after the API has not answered for this long
SILENCE_S = 2.0  # from then on it says that the API does not answer
LIST_EVERY_S = 2.0
PLAIN_EVERY_S = 15.0  # a running stage prints a line this often even if its status did not change


@dataclass(frozen=True, slots=True)
class Look:
    """The run as it was last seen, None before the first answer, and for how long the API has not answered."""

    run: Run | None
    silent_s: float


def watch(client: Client, run_id: str, *, console: Console | None = None, poll_s: float = POLL_S) -> str:
    """Show the run until it is finished. Returns its final status (SUCCEEDED, FAILED or CANCELLED).

    Raises ApiError (404: no such run), and Unreachable after the API has not answered for a minute.
    """
    console = console or Console()
    looks = Looks(client, run_id, poll_s)
    return _live(looks, console) if console.is_terminal else _plain(looks, console)


class Looks:
    """Iterates over the run, at most `poll_s` seconds apart, until it is finished. A thread asks, so that an API that hangs is noticed."""

    def __init__(self, client: Client, run_id: str, poll_s: float = POLL_S):
        self._client, self._run_id, self._poll_s = client, run_id, poll_s
        self._answers: queue.Queue[Run | ClientError] = queue.Queue()
        self._left = threading.Event()
        self.catalog = Catalog()

    @property
    def url(self) -> str:
        return self._client.base_url

    def __iter__(self) -> Iterator[Look]:
        threading.Thread(target=self._ask, daemon=True).start()
        run, answered_at = None, time.monotonic()
        try:
            while run is None or not run.is_finished:
                try:
                    answer = self._answers.get(timeout=self._poll_s)
                except queue.Empty:
                    pass
                else:
                    if isinstance(answer, Run):
                        run, answered_at = answer, time.monotonic()
                    elif not _passes(answer):
                        raise answer
                silent_s = time.monotonic() - answered_at
                if silent_s > PATIENCE_S:
                    raise Unreachable(self._client.base_url, TimeoutError(f"none for {seconds(silent_s)}"))
                yield Look(run, silent_s if silent_s > SILENCE_S else 0.0)
        finally:
            self._left.set()

    def _ask(self) -> None:
        while not self._left.is_set():
            try:
                if not self.catalog.metrics:
                    self.catalog = self._client.catalog()
                run = self._client.run(self._run_id)
            except ClientError as err:
                self._answers.put(err)
                if not _passes(err):
                    return
            except RuntimeError:  # httpx: the client was closed while this thread was between two requests
                if not self._left.is_set():
                    raise
                return
            else:
                self._answers.put(run)
                if run.is_finished:
                    return
            self._left.wait(self._poll_s)


def watch_list(client: Client, console: Console, *, status: str | None, limit: int, every_s: float = LIST_EVERY_S) -> None:
    """Show the newest runs until Ctrl-C (KeyboardInterrupt). While the API does not answer, the last list stays, with its age."""
    shown: RenderableType = Text("")
    answered_at = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            try:
                page = client.runs_page(status=status, limit=limit)
            except ClientError as err:
                if not _passes(err):
                    raise
                silent_s = time.monotonic() - answered_at
                told = f"no answer from {client.base_url} for {seconds(silent_s)}, the list is that old; trying again"
                live.update(Group(Text(told, style="yellow"), shown), refresh=True)
            else:
                answered_at, shown = time.monotonic(), runs_table(page.items) if page.items else Text("No such runs.")
                live.update(shown, refresh=True)
            time.sleep(every_s)


def _passes(error: ClientError) -> bool:
    """Whether the server may answer later on."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in RETRIED)


def silence(look: Look, url: str) -> str:
    """`no answer from http://… for 7s; trying again`, empty while it answers."""
    stale = ", what you see is that old" if look.run is not None else ""
    return f"no answer from {url} for {seconds(look.silent_s)}{stale}; trying again" if look.silent_s else ""


def _live(looks: Looks, console: Console) -> str:
    status = ""
    with Live(console=console, auto_refresh=False) as live:
        for look in looks:
            shown: list[RenderableType] = []
            if told := silence(look, looks.url):
                shown.append(Text(told, style="yellow"))
            if look.run is not None:
                status = look.run.status
                shown.append(RunTable(look.run, looks.catalog))
            live.update(Group(*shown), refresh=True)
    return status


def _plain(looks: Looks, console: Console) -> str:
    status, silent, seen, said_at = "", False, dict[str, str](), dict[str, float]()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    for look in looks:
        if bool(look.silent_s) != silent:
            silent = not silent
            say(silence(look, looks.url) if silent else f"{looks.url} answers again")
        run = look.run
        if run is None:
            continue
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
                say(plain_line(stage, looks.catalog))
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

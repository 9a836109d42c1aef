"""What the Runs page shows, fetched from the control API; only what has changed since the last look is sent on."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from client.client import Client
from client.errors import ApiError, ClientError
from client.models import LogLine, Run, RunSummary
from services.ui import run_detail, run_list
from services.ui.curves import KEYS, figure
from services.ui.html import header

RUNS_SHOWN = 30
LOG_LINES = 400
LOG_PAGES = 20  # of 1000 lines, at most, in one look
MAX_POINTS = 400
NO_REPORT = "*The report card appears here when the run's report stage has made it.*"


@dataclass(slots=True)
class View:
    """One visitor's place: the run looked at, how far its log has been read, what the page already shows."""

    run_id: str | None = None
    log_after: int = 0
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    shown: dict[str, Hashable] = field(default_factory=dict)
    settled: bool = False  # a finished run, wholly fetched: it changes no more

    def look_at(self, run_id: str | None) -> None:
        if run_id != self.run_id:
            self.run_id, self.log_after, self.settled = run_id, 0, False
            self.log.clear()

    def changed(self, name: str, value: Any, key: Hashable = None) -> Any:
        """`value` for the component `name`, or "leave as is" when it stands there already."""
        key = value if key is None else key
        if name in self.shown and self.shown[name] == key:
            return gr.skip()
        self.shown[name] = key
        return value


@dataclass(slots=True)
class Page:
    """Updates of the page's components, in the order in which the page lists them."""

    header: Any = field(default_factory=gr.skip)
    runs: Any = field(default_factory=gr.skip)
    headline: Any = field(default_factory=gr.skip)
    cancel: Any = field(default_factory=gr.skip)
    stages: Any = field(default_factory=gr.skip)
    plot: Any = field(default_factory=gr.skip)
    report: Any = field(default_factory=gr.skip)
    log: Any = field(default_factory=gr.skip)
    detail: Any = field(default_factory=gr.skip)

    def updates(self) -> list[Any]:
        names = ("header", "runs", "headline", "cancel", "stages", "plot", "report", "log", "detail")
        return [getattr(self, name) for name in names]


def look(api: Client, view: View) -> Page:
    """One poll. A control API that is away is said so, in place of the header; what was shown stays."""
    page, run_id = Page(), view.run_id
    try:
        runs = api.runs_page(limit=RUNS_SHOWN).items
        workers = run_list.workers_line(api.workers())
        if run_id is None and runs:
            view.look_at(runs[0].id)
            run_id = view.run_id
        _list(api, view, page, runs, workers)
        if run_id is not None:
            _detail(api, view, page, run_id)
    except ClientError as err:
        page.header = view.changed("header", header(problem=str(err)))
    if view.run_id != run_id:  # another run was chosen meanwhile; its own look follows
        return Page()
    return page


def _list(api: Client, view: View, page: Page, runs: Sequence[RunSummary], workers: str) -> None:
    page.header = view.changed("header", header(workers))
    shown = run_list.run_list(runs, view.run_id) if runs else run_list.no_runs(api.base_url)
    page.runs = view.changed("runs", shown)
    page.detail = view.changed("detail", gr.update(visible=bool(runs)), bool(runs))


def _detail(api: Client, view: View, page: Page, run_id: str) -> None:
    run = api.run(run_id)
    page.headline = view.changed("headline", run_detail.headline(run))
    page.cancel = view.changed("cancel", gr.update(visible=not run.is_finished), run.is_finished)
    page.stages = view.changed("stages", run_detail.stage_table(run))
    if view.settled and view.shown.get("run") == run_id:
        return
    view.shown["run"] = run_id
    _plot(api, view, page, run)
    _log(api, view, page, run)
    page.report = view.changed("report", _report(api, run))
    view.settled = run.is_finished


def _plot(api: Client, view: View, page: Page, run: Run) -> None:
    series = api.metrics(run.id, keys=KEYS, max_points=MAX_POINTS)
    key = (run.id, *((s.stage, s.key, len(s.points), s.points[-1].step if s.points else 0) for s in series))
    page.plot = view.changed("plot", gr.update(value=figure(series)), key)


def _log(api: Client, view: View, page: Page, run: Run) -> None:
    for _ in range(LOG_PAGES):
        fresh = api.logs(run.id, after=view.log_after)
        view.log.extend(fresh.items)
        view.log_after = fresh.next_after
        if not fresh.items:
            break
    page.log = view.changed("log", run_detail.log_lines(tuple(view.log)))


def _report(api: Client, run: Run) -> str:
    stage = next((s for s in run.stages if s.kind == "report"), None)
    if stage is None or stage.status != "SUCCEEDED":
        return NO_REPORT
    try:
        return api.report(run.id)
    except ApiError as err:
        return NO_REPORT if err.status == 404 else f"*The report could not be read: {err}*"

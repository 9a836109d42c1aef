"""Fetches the contents of the Runs page from the control API. Only what has changed since the last poll goes to the browser."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from client.client import Client
from client.errors import ApiError, ClientError
from client.models import Catalog, LogLine, Run, RunSummary
from services.ui import run_detail, run_list
from services.ui.curves import figure, keys
from services.ui.html import header

RUNS_SHOWN = 30
LOG_LINES = 400
LOG_PAGES = 20  # read at most in one poll; a page has 1000 lines
MAX_POINTS = 400
NO_REPORT = "*The report card appears here when the run has finished.*"


@dataclass(slots=True)
class View:
    """State of one visitor: the chosen run, how far its log has been read, and what the page already shows."""

    run_id: str | None = None
    log_after: int = 0
    log: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    shown: dict[str, Hashable] = field(default_factory=dict)
    catalog: Catalog | None = None  # the tables of stages and metrics, fetched once
    settled: bool = False  # the run has finished and all of it was fetched: nothing changes any more

    def look_at(self, run_id: str | None) -> None:
        if run_id != self.run_id:
            self.run_id, self.log_after, self.settled = run_id, 0, False
            self.log.clear()

    def changed(self, name: str, value: Any, key: Hashable = None) -> Any:
        """An update of the component `name` to `value`, or no update when it shows `value` already.

        `key`, when given, is compared instead of the value.
        """
        key = value if key is None else key
        if name in self.shown and self.shown[name] == key:
            return gr.skip()
        self.shown[name] = key
        return value


@dataclass(slots=True)
class Page:
    """An update for each component of the page, in the order in which the page lists them."""

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
    """Poll the control API once. While it is down, the header says so and the rest of the page stays as it is."""
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
    if view.run_id != run_id:  # another run was chosen meanwhile, and a poll for it follows
        return Page()
    return page


def _list(api: Client, view: View, page: Page, runs: Sequence[RunSummary], workers: str) -> None:
    page.header = view.changed("header", header(workers))
    shown = run_list.run_list(runs, view.run_id) if runs else run_list.no_runs(api.base_url)
    page.runs = view.changed("runs", shown)
    page.detail = view.changed("detail", gr.update(visible=bool(runs)), bool(runs))


def _detail(api: Client, view: View, page: Page, run_id: str) -> None:
    run = api.run(run_id)
    catalog = view.catalog = view.catalog or api.catalog()
    page.headline = view.changed("headline", run_detail.headline(run, catalog))
    page.cancel = view.changed("cancel", gr.update(visible=not run.is_finished), run.is_finished)
    page.stages = view.changed("stages", run_detail.stage_table(run, catalog))
    if view.settled and view.shown.get("run") == run_id:
        return
    view.shown["run"] = run_id
    _plot(api, view, page, run, catalog)
    _log(api, view, page, run)
    page.report = view.changed("report", _report(api, run))
    view.settled = run.is_finished


def _plot(api: Client, view: View, page: Page, run: Run, catalog: Catalog) -> None:
    series = api.metrics(run.id, keys=keys(catalog), max_points=MAX_POINTS)
    key = (run.id, *((s.stage, s.key, len(s.points), s.points[-1].step if s.points else 0) for s in series))
    page.plot = view.changed("plot", gr.update(value=figure(series, catalog)), key)


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
    if stage is None or (stage.status != "SUCCEEDED" and not run.is_finished):
        return NO_REPORT
    try:
        return f"[The whole report, with curves, as a page of its own](report/{run.id})\n\n{api.report(run.id)}"
    except ApiError as err:
        return NO_REPORT if err.status == 404 else f"*The report could not be read: {err}*"

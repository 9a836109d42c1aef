"""The list of runs as HTML, and the invitation shown before the first run."""

from __future__ import annotations

from collections.abc import Sequence

from client.models import RunSummary, Worker
from client.text import duration
from services.ui.html import render

# A click or Enter chooses a row. The page's address keeps the choice, so a reload or a shared link shows the same run.
ON_LOAD = """
const pick = (row) => {
  if (!row) return;
  const url = new URL(window.location);
  url.searchParams.set('run', row.dataset.run);
  window.history.replaceState(null, '', url);
  trigger('select', {run: row.dataset.run});
};
element.addEventListener('click', (e) => pick(e.target.closest('tr[data-run]')));
element.addEventListener('keydown', (e) => { if (e.key === 'Enter') pick(e.target.closest('tr[data-run]')); });
"""


def run_list(runs: Sequence[RunSummary], selected: str | None) -> str:
    return render("run_list", rows=[(run, _now(run)) for run in runs], selected=selected)


def _now(run: RunSummary) -> str:
    """The detail of an unfinished run, or the time that the run has taken."""
    if run.detail and not run.is_finished:
        return run.detail
    took = duration(run.started_at, run.finished_at)
    return f"took {took}" if took else ""


def no_runs(api_url: str) -> str:
    return render("no_runs", api_url=api_url)


def workers_line(workers: Sequence[Worker]) -> str:
    """The workers that are alive, by queue: `2 workers · cpu 1, gpu 1`."""
    if not workers:
        return "⚠ no worker is alive: runs will wait"
    queues = sorted({w.queue for w in workers})
    each = ", ".join(f"{q} {sum(w.queue == q for w in workers)}" for q in queues)
    return f"{len(workers)} worker{'s' if len(workers) > 1 else ''} · {each}"

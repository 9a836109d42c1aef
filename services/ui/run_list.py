"""The list of runs as HTML, and what stands there before the first one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from client.models import RunSummary, Worker
from client.text import duration
from services.ui.words import ago, chip

# A row that is clicked, or chosen with Enter, is remembered in the address, so that a reload or a link shows the same run.
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
    rows = "".join(_row(run, run.id == selected) for run in runs)
    return (
        '<div class="nc-card"><table class="nc-table nc-runs">'
        '<thead><tr><th>Run</th><th>Status</th><th class="num">Started</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(run: RunSummary, selected: bool) -> str:
    took = duration(run.started_at, run.finished_at)
    now = run.detail if not run.is_finished and run.detail else f"took {took}" if took else ""
    return (
        f'<tr data-run="{escape(run.id)}" tabindex="0" aria-selected="{str(selected).lower()}">'
        f'<td><div class="name">{escape(run.name)}</div><div class="nc-dim" title="{escape(run.id)}">{escape(run.recipe)}</div></td>'
        f'<td title="{escape(run.detail or "")}">{chip(run.status)}<div class="nc-dim">{escape(now)}</div></td>'
        f'<td class="num dim">{ago(run.created_at)}</td></tr>'
    )


def no_runs(api_url: str) -> str:
    body = json.dumps({"recipe": "tiny"})
    curl = f"curl -X POST {api_url}/v1/runs \\\n  -H \"Authorization: Bearer $(cat .nanochat/keys/admin.key)\" \\\n  -H 'Content-Type: application/json' \\\n  -d '{body}'"
    return (
        '<div class="nc-card"><div class="nc-empty" id="no-runs"><b>No runs yet.</b> Train your first ChatGPT: press '
        f"<b>Start run</b> below, or<pre>{escape(curl)}</pre>or <code>nanochat submit tiny --watch</code></div></div>"
    )


def workers_line(workers: Sequence[Worker]) -> str:
    """Who could do the work: `2 workers · cpu 1, gpu 1`."""
    if not workers:
        return "⚠ no worker is alive: runs will wait"
    queues = sorted({w.queue for w in workers})
    each = ", ".join(f"{q} {sum(w.queue == q for w in workers)}" for q in queues)
    return f"{len(workers)} worker{'s' if len(workers) > 1 else ''} · {escape(each)}"

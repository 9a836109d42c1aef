"""Events of a run as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from client.models import Event
from client.printable import clean
from client.text import number, when

QUIET = frozenset(
    {"progress", "metric", "sample", "artifact", "checkpoint_deleted"}
)  # too many, or of no use without their data


def event_line(event: Event) -> str:
    """`2026-11-28 10:00  base_train#1  RUNNING → SUCCEEDED`."""
    where = (event.stage or "run") + (f"#{event.attempt}" if event.attempt else "")
    return clean(f"{when(datetime.fromtimestamp(event.t, UTC))}  {where:<16} {_told(event.kind, event.data)}".rstrip())


def _told(kind: str, data: Mapping[str, Any]) -> str:
    if "from" in data and "to" in data:
        why = data.get("message") or data.get("detail") or data.get("reason")
        return f"{data['from']} → {data['to']}" + (f": {why}" if why else "")
    match kind:
        case "checkpoint":
            return f"checkpoint at step {data.get('step')}, {data.get('bytes', 0) / 1e6:,.1f} MB"
        case "eval":
            return f"{data.get('name')}: {_figures(data.get('values') or {}) or 'no figures'}"
        case "log" | "warning" | "error":
            told = "; ".join(part for part in (data.get("message"), data.get("hint")) if part)
            return told if kind == "log" else f"{kind}: {told}"
    return f"{kind.replace('_', ' ')}  {_figures(data)}".rstrip()


def _figures(values: Mapping[str, Any]) -> str:
    shown = ((key, number(value) if isinstance(value, int | float) else value) for key, value in values.items())
    return ", ".join(f"{key} {value}" for key, value in shown if not isinstance(value, dict | list) and value not in (None, ""))

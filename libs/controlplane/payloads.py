"""Bodies of webhook deliveries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controlplane.models import Event
from controlplane.webhook_kinds import PING, Format

LONGEST = 32_768  # characters of an event's own data; Standard Webhooks asks for small bodies
LONGEST_TEXT = 2_000  # characters of a message for people


@dataclass(frozen=True, slots=True)
class About:
    """What an event is about."""

    project: str
    run_id: str
    run_name: str
    recipe: str
    labels: Sequence[str]
    stage: str | None
    attempt: int | None


def body(format: Format, event: Event, about: About) -> str:
    """The body of a delivery."""
    if format is Format.SLACK:
        return _dump({"text": _words(event, about)})
    details: Any = event.data
    if len(_dump(details)) > LONGEST:
        details = {"truncated": True}
    run = {"id": about.run_id, "name": about.run_name, "recipe": about.recipe, "labels": list(about.labels)}
    data = {"project": about.project, "run": run, "stage": about.stage, "attempt": about.attempt, "event_id": event.id}
    return _dump({"type": event.kind, "timestamp": _iso(event.t), "data": {**data, "details": details}})


def ping(format: Format, project: str, hook_id: str) -> str:
    """The body of a delivery that only tries the webhook."""
    if format is Format.SLACK:
        return _dump({"text": f"nanochat: webhook {hook_id} of project {_escape(project)} works"})
    return _dump({"type": PING, "timestamp": _iso(datetime.now(UTC)), "data": {"project": project, "webhook": hook_id}})


def _words(event: Event, about: About) -> str:
    """One line for people, in Slack's mrkdwn."""
    place = f"*{_escape(about.run_name)}* (`{about.run_id}`)" + (f" · {about.stage}" if about.stage else "")
    status = event.data.get("to")
    what = f"is {status}" if isinstance(status, str) else event.kind.replace("_", " ")
    notes = [event.data.get(key) for key in ("detail", "message") if isinstance(event.data.get(key), str)]
    said = next((note for note in notes if note), "")
    step = event.data.get("step")
    if isinstance(step, int):
        what += f" at step {step:,}"
    return f"{place} {_escape(what)}{': ' + _escape(said[:LONGEST_TEXT]) if said else ''}"


def _escape(text: str) -> str:
    """Slack's three control characters as entities, so that a name cannot make a link or call people."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

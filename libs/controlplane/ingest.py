"""Store a stage's events and log lines exactly once.

A batch is stored in one transaction, with the run locked and the attempt's fence checked. The transaction also stores the number
of the attempt's last event or line. Numbers up to it are skipped, so a supervisor may send the same events and lines again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.claims import Fence, fenced
from controlplane.models import Artifact, Attempt, Checkpoint, Event, Json, LogLine, MetricPoint, Stage
from controlplane.transitions import gate

COMMON_FIELDS = frozenset({"v", "seq", "t", "kind"})  # every event has these; all others are its data
LINE_LIMIT = 4000  # characters that are stored of a text; the attempt's own files keep all of them


def events(session: Session, fence: Fence, batch: Iterable[Json]) -> int:
    """Store events of `events.jsonl` in order. Returns how many were new. Raises FenceLost."""
    with gate(session, fence.run_id):
        stage, attempt = fenced(session, fence)
        new = [e for e in batch if e["seq"] > attempt.event_seq]
        if not new:
            return 0
        session.execute(insert(Event).on_conflict_do_nothing(), [_event(fence, e) for e in new])
        for event in new:
            if event["kind"] == "artifact":
                _store_artifact(session, fence, event)
            elif event["kind"] == "checkpoint":
                _store_checkpoint(session, fence, event)
            elif event["kind"] == "checkpoint_deleted":
                _mark_deleted(session, fence, event)
        _store_metrics(session, stage, attempt, [e for e in new if e["kind"] == "metric"])
        for event in new:
            if event["kind"] == "progress":
                stage.progress = _data(event)
        attempt.event_seq = new[-1]["seq"]
        stage.signs_of_life_at = func.clock_timestamp()
        session.flush()
        return len(new)


def logs(session: Session, fence: Fence, first: int, lines: Sequence[str]) -> int:
    """Store lines `first`, `first + 1`, ... of the attempt's output. Returns how many were new. Raises FenceLost."""
    with gate(session, fence.run_id):
        stage, attempt = fenced(session, fence)
        skip = max(0, attempt.log_no + 1 - first)
        rows = [
            {"run_id": fence.run_id, "attempt_id": fence.attempt_id, "no": no, "line": _printable(line)}
            for no, line in enumerate(lines[skip:], start=first + skip)
        ]
        if not rows:
            return 0
        session.execute(insert(LogLine).on_conflict_do_nothing(), rows)
        attempt.log_no = first + len(lines) - 1
        stage.signs_of_life_at = func.clock_timestamp()
        session.flush()
        return len(rows)


def _event(fence: Fence, event: Json) -> dict[str, Any]:
    return {
        "run_id": fence.run_id,
        "stage_id": fence.stage_id,
        "attempt_id": fence.attempt_id,
        "seq": event["seq"],
        "t": _time(event),
        "kind": event["kind"],
        "data": _data(event),
    }


def _data(event: Json) -> Json:
    return {key: _clean(value) for key, value in event.items() if key not in COMMON_FIELDS}


def _store_artifact(session: Session, fence: Fence, event: Json) -> None:
    content = {"path": event["path"], "sha256": event["sha256"]}
    session.execute(
        insert(Artifact)
        .values(run_id=fence.run_id, stage_id=fence.stage_id, attempt_id=fence.attempt_id, name=event["name"], **content)
        .on_conflict_do_update(index_elements=["attempt_id", "name"], set_=content)
    )


def _store_checkpoint(session: Session, fence: Fence, event: Json) -> None:
    content = {key: event.get(key) for key in ("step", "sha256", "bytes", "final")}
    content["val_bpb"] = _finite(event.get("val_bpb"))
    content["deleted_at"] = None  # a checkpoint that is reported again exists again
    session.execute(
        insert(Checkpoint)
        .values(run_id=fence.run_id, stage_id=fence.stage_id, attempt_id=fence.attempt_id, path=event["path"], **content)
        .on_conflict_do_update(index_elements=["attempt_id", "path"], set_=content)
    )


def _mark_deleted(session: Session, fence: Fence, event: Json) -> None:
    """Mark a checkpoint as deleted by its stage to free disk space: it can no longer be resumed from or served."""
    session.execute(
        update(Checkpoint)
        .where(Checkpoint.attempt_id == fence.attempt_id, Checkpoint.path == event["path"], Checkpoint.deleted_at.is_(None))
        .values(deleted_at=func.now())
    )


def _store_metrics(session: Session, stage: Stage, attempt: Attempt, batch: Sequence[Json]) -> None:
    points: dict[tuple[str, int], dict[str, Any]] = {}
    latest: dict[str, Any] = {}
    for event in batch:
        for key, value in event["values"].items():
            if value is None:
                continue
            point = {"stage_id": stage.id, "attempt_no": attempt.no, "key": key, "step": event["step"]}
            points[key, event["step"]] = {**point, "t": _time(event), "value": float(value)}
            latest[key] = value
    if points:
        statement = insert(MetricPoint)
        changed = {"t": statement.excluded.t, "value": statement.excluded.value}
        keys = ["stage_id", "key", "step", "attempt_no"]
        session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), [points[k] for k in sorted(points)])
        stage.latest = {**stage.latest, **latest}


def _time(event: Json) -> datetime:
    return datetime.fromtimestamp(event["t"], UTC)


def _finite(value: Any) -> float | None:
    """The value as a float; None if it is missing or not finite. Events spell NaN and infinities as strings."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)


def _clean(value: Any) -> Any:
    """The JSON value with every text cut to LINE_LIMIT characters and without NUL, which Postgres cannot store."""
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, dict):
        return {_printable(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


def _printable(text: str) -> str:
    return text.replace("\x00", "\ufffd")[:LINE_LIMIT]

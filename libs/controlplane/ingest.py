"""Store a stage's events and log lines exactly once.

A batch is stored in one transaction, with the attempt's fence checked. The transaction also stores the number of the attempt's last
event or line. Numbers up to it are skipped, so a supervisor may send the same events and lines again. Events are stored with the run
locked. Log lines are not: a stage that prints millions must not keep anybody from cancelling it.

Under a LateFence, what an ended attempt left is stored as that attempt's. It publishes no outputs, and the stage's present state stays.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import to_json
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane import bulk, points
from controlplane.chunks import Point
from controlplane.claims import Fence, LateFence, current, fenced, lost
from controlplane.models import Artifact, Attempt, Checkpoint, Event, Json, LogLine, Stage
from controlplane.transitions import gate
from nanochat.contract.lines import MOST_VALUES, BadLine
from nanochat.planning.metrics import headline

COMMON_FIELDS = frozenset({"v", "seq", "t", "kind"})  # every event has these; all others are its data
EVENT_COLUMNS = ("run_id", "stage_id", "attempt_id", "seq", "t", "kind", "data")
EVENT_TYPES = ("text", "int8", "int8", "int8", "timestamptz", "text", "bytea")  # jsonb in its binary form is sent as it is
LINE_LIMIT = 4000  # characters that are stored of a text; the attempt's own files keep all of them
LINES_KEPT = 50_000  # log lines of an attempt, about 12 MB
LINES_DROPPED = 10_000  # at a time
REPORTED = 20  # lines set aside that become events; the rest of an attempt's is counted
LOG_LOCK = 0x6C6F67  # "log" in ASCII, the first number of the advisory lock


def events(session: Session, fence: Fence, batch: Iterable[Json]) -> int:
    """Store events of `events.jsonl` in order. Returns how many were new. Raises FenceLost."""
    with gate(session, fence.run_id):
        stage, attempt = fenced(session, fence)
        new, late = _after(batch, attempt.event_seq), isinstance(fence, LateFence)
        if not new:
            return 0
        bulk.copy(session, Event, EVENT_COLUMNS, EVENT_TYPES, (_event(fence, e) for e in new))
        for event in new:
            if event["kind"] == "artifact" and not late:
                _store_artifact(session, fence, event)
            elif event["kind"] == "checkpoint":
                _store_checkpoint(session, fence, event)
            elif event["kind"] == "checkpoint_deleted":
                _mark_deleted(session, fence, event)
        latest = _store_metrics(session, stage, attempt, [e for e in new if e["kind"] == "metric"])
        for event in new:
            if event["kind"] == "eval" and isinstance(event["values"], dict):
                latest |= _clean(headline(event["name"], event["values"]))
        if not late:
            _show(stage, latest, [e for e in new if e["kind"] == "progress"])
        attempt.event_seq = new[-1]["seq"]
        stage.signs_of_life_at = func.clock_timestamp()
        session.flush()
        return len(new)


def quarantine(session: Session, fence: Fence, lines: Sequence[BadLine]) -> int:
    """Report lines of `events.jsonl` that cannot be stored, on the attempt and as events. Returns how many were new. Raises FenceLost."""
    with gate(session, fence.run_id):
        _, attempt = fenced(session, fence)
        new = [line for line in lines if line.number > attempt.bad_line]
        for line in new[: max(0, REPORTED - attempt.quarantined)]:
            data = {"line": line.number, "reason": _printable(line.reason), "text": _printable(line.text)}
            row = {"run_id": fence.run_id, "stage_id": fence.stage_id, "attempt_id": fence.attempt_id, "data": data}
            session.add(Event(kind="line_quarantined", **row))
        if new:
            attempt.bad_line = max(line.number for line in new)
            attempt.quarantined += len(new)
        session.flush()
        return len(new)


def logs(session: Session, fence: Fence, first: int, lines: Sequence[str]) -> int:
    """Store lines `first`, `first + 1`, ... of the attempt's output. Returns how many were new. Raises FenceLost.

    Of one attempt, at least the newest LINES_KEPT lines are kept; its own file keeps all.
    """
    # Readers follow the ids of a run's lines, so two attempts of a run must not store lines at the same time.
    session.execute(select(func.pg_advisory_xact_lock(LOG_LOCK, func.hashtext(fence.run_id))))
    row = session.execute(select(Attempt.log_no, Attempt.log_kept_from).where(*current(fence))).first()
    if row is None:
        raise lost(fence)
    skip = max(0, row.log_no + 1 - first)
    new = [(fence.run_id, fence.attempt_id, no, _printable(line)) for no, line in enumerate(lines[skip:], start=first + skip)]
    if not new:
        return 0
    bulk.copy(session, LogLine, ("run_id", "attempt_id", "no", "line"), ("text", "int8", "int8", "text"), new)
    last = first + len(lines) - 1
    changes: dict[str, Any] = {"log_no": last}
    if last - row.log_kept_from >= LINES_KEPT + LINES_DROPPED:
        kept_from = last + 1 - LINES_KEPT
        gone = delete(LogLine).where(LogLine.attempt_id == fence.attempt_id, LogLine.no < kept_from).returning(LogLine.id).cte()
        changes |= {"log_kept_from": kept_from, "log_dropped_id": session.scalar(select(func.max(gone.c.id))) or 0}
    _store_end_of_logs(session, fence, changes)
    return len(new)


def _store_end_of_logs(session: Session, fence: Fence, changes: dict[str, Any]) -> None:
    """The last statements of the transaction, because from here on it holds rows that the gate changes as well."""
    once = {"synchronize_session": False}
    found = session.execute(
        update(Attempt).where(*current(fence)).values(**changes).returning(Attempt.id), execution_options=once
    )
    if found.first() is None:
        raise lost(fence)
    alive = update(Stage).where(Stage.id == fence.stage_id).values(signs_of_life_at=func.clock_timestamp())
    session.execute(alive, execution_options=once)


def _after(batch: Iterable[Json], seq: int) -> list[Json]:
    """The events with a greater `seq` than all before them, beginning with `seq`."""
    new = []
    for event in batch:
        if event["seq"] > seq:
            seq = event["seq"]
            new.append(event)
    return new


def _event(fence: Fence, event: Json) -> tuple[Any, ...]:
    data = b"\x01" + to_json(_data(event))  # the version of jsonb's binary form, and a text
    return fence.run_id, fence.stage_id, fence.attempt_id, event["seq"], _time(event), _printable(event["kind"]), data


def _data(event: Json) -> Json:
    return {key: _clean(value) for key, value in event.items() if key not in COMMON_FIELDS}


def _store_artifact(session: Session, fence: Fence, event: Json) -> None:
    content = {"path": _printable(event["path"]), "sha256": _printable(event["sha256"])}
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


def _store_metrics(session: Session, stage: Stage, attempt: Attempt, batch: Sequence[Json]) -> dict[str, Any]:
    """Returns the newest value of each metric."""
    series: dict[str, dict[int, Point]] = defaultdict(dict)
    latest: dict[str, Any] = {}
    for event in batch:
        step, t = event["step"], float(event["t"])
        for name, value in event["values"].items():
            if value is not None:
                series[name][step] = t, float(value)
                latest[name] = value
    if series:
        points.store(session, stage.id, attempt.no, _by_key(series))
    cleaned: dict[str, Any] = _clean(latest)
    return cleaned


def _show(stage: Stage, latest: dict[str, Any], progress: Sequence[Json]) -> None:
    if latest:
        merged = {**stage.latest, **latest}
        stage.latest = dict(list(merged.items())[-MOST_VALUES:])
    if progress:
        stage.progress = _data(progress[-1])


def _by_key(series: points.Series) -> points.Series:
    """Names that become the same key, because not all of their characters can be stored, share a series."""
    found: dict[str, dict[int, Point]] = defaultdict(dict)
    for name, values in series.items():
        found[_name(name)].update(values)
    return found


def _time(event: Json) -> datetime:
    return datetime.fromtimestamp(event["t"], UTC)


def _finite(value: Any) -> float | None:
    """The value as a float; None if it is missing or not finite. Events spell NaN and infinities as strings."""
    if value is None or not math.isfinite(float(value)):
        return None
    return float(value)


def _clean(value: Any) -> Any:
    """The JSON value with texts that Postgres can store, and non-finite numbers as events spell them."""
    if isinstance(value, float):  # first, because most values are
        return value if math.isfinite(value) else "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, dict):
        return {_name(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _printable(text: str) -> str:
    """The text without NUL and lone surrogates, which Postgres cannot store, cut to LINE_LIMIT characters."""
    if len(text) > LINE_LIMIT:
        text = text[: LINE_LIMIT - 1] + "…"
    return text if text.isascii() and "\x00" not in text else _UNSTORABLE.sub("\ufffd", text)


@lru_cache(maxsize=1024)
def _name(text: str) -> str:
    """A stage uses the same few names in all of its events."""
    return _printable(text)

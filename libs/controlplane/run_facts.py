"""What a list of runs shows of their stages, in one query for all runs of a page, and how far each run is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Double, literal_column, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from controlplane.lifecycle import LIVE, Reason, RunStatus, StageStatus
from nanochat.planning.graph import TRAINED

TRAINING_SHARE = 0.9  # of a run; pretraining alone is that much of the speedrun's hours
# Statuses that explain why a run does not simply run, the one that says most first.
HELD_UP = (StageStatus.FAILED, StageStatus.BACKOFF, StageStatus.STOPPING, StageStatus.PAUSED, StageStatus.CANCELLED)

_TRAINING = ", ".join(f"'{name}'" for name in TRAINED)
# The figures of a run, and the kinds of the stages that measure what is meant: midtraining's bits per byte are those of conversations.
_KINDS = {
    "tok_per_s": _TRAINING,
    "val_bpb": "'base_train', 'base_eval'",
    "core": "'base_train', 'base_eval'",
    "chatcore": "'chat_eval'",
}
_FIGURES = ", ".join(
    f"(array_agg(latest->'{key}' ORDER BY position DESC) FILTER (WHERE latest ? '{key}' AND kind IN ({kinds})))[1] AS {key}"
    for key, kinds in _KINDS.items()
)
_WORST = "(array_agg({column} ORDER BY worst, position) FILTER (WHERE worst IS NOT NULL))[1] AS {column}"
_STAGES = text(
    f"""
SELECT run_id, count(*) FILTER (WHERE status = 'SUCCEEDED') AS done, count(*) AS total,
       array_agg(name ORDER BY position) AS names,
       array_agg(CASE WHEN status = 'SUCCEEDED' THEN 1.0 ELSE
           least(1.0, coalesce((progress->>'done')::float / nullif((progress->>'total')::float, 0), 0.0)) END
           ORDER BY position) AS shares,
       array_agg(CASE WHEN status = ANY(:live) THEN (progress->>'eta_s')::float END ORDER BY position) AS etas,
       {_FIGURES},
       (array_agg(name ORDER BY position DESC) FILTER (WHERE latest ? 'tok_per_s' AND kind IN ({_TRAINING})))[1] AS timed,
       bool_or(status = 'QUEUED') AS queued,
       {", ".join(_WORST.format(column=c) for c in ("status", "reason", "message", "retry_at"))}
FROM (SELECT *, array_position(:held_up, status) AS worst FROM stage WHERE run_id = ANY(:run_ids)) AS stage
GROUP BY run_id
"""
)

_PLANNED = """(
    SELECT jsonb_object_agg(s->>'stage', jsonb_build_array(s->'flops', s->'tokens', s->'hours'))
    FROM jsonb_array_elements((run.planned->'stages') || coalesce(run.planned->'others', '[]')) AS s
)"""


@dataclass(frozen=True, slots=True)
class Planned:
    """The planned training FLOPs, tokens and hours of a training stage. None: not known."""

    flops: float | None = None
    tokens: float | None = None
    hours: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """The stages of one run. `shares` says how far each is, from 0 to 1, and `etas` its own estimate of the seconds left."""

    done: int = 0
    total: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    etas: Mapping[str, float | None] = field(default_factory=dict)
    tok_per_s: float | None = None
    timed: str | None = None  # the stage that reported it
    val_bpb: float | None = None
    core: float | None = None
    chatcore: float | None = None
    queued: bool = False  # whether a stage is
    status: StageStatus | None = None  # of the first in HELD_UP, as the following
    reason: Reason | None = None
    message: str = ""
    retry_at: datetime | None = None


def facts(session: Session, run_ids: Sequence[str]) -> dict[str, Facts]:
    """The facts of each run, in one query."""
    known: dict[str, Any] = {"run_ids": list(run_ids), "live": [*LIVE], "held_up": [*HELD_UP]}
    found = {run_id: Facts() for run_id in run_ids}
    for row in session.execute(_STAGES, known):
        found[row.run_id] = Facts(
            done=row.done,
            total=row.total,
            shares=dict(zip(row.names, (_finite(share) or 0.0 for share in row.shares), strict=True)),
            etas=dict(zip(row.names, map(_finite, row.etas), strict=True)),
            tok_per_s=_finite(row.tok_per_s),
            timed=row.timed,
            val_bpb=_finite(row.val_bpb),
            core=_finite(row.core),
            chatcore=_finite(row.chatcore),
            queued=row.queued,
            status=None if row.status is None else StageStatus(row.status),
            reason=None if row.reason is None else Reason(row.reason),
            message=row.message or "",
            retry_at=row.retry_at,
        )
    return found


def figure(key: str) -> ColumnElement[float]:
    """A column: a figure of the run by its key, null if it has none or one that is not finite."""
    value = f"nullif(nullif(nullif(latest->>'{key}', 'nan'), 'inf'), '-inf')::float"
    of = f"stage WHERE run_id = run.id AND kind IN ({_KINDS[key]}) AND latest ? '{key}'"
    return literal_column(f"(SELECT {value} FROM {of} ORDER BY position DESC LIMIT 1)", Double)


def planned() -> ColumnElement[Any]:
    """A column: of each stage in the run's plan its `[flops, tokens, hours]`. A whole plan is ten times as long."""
    return literal_column(_PLANNED, JSONB).label("planned")


def plan_of(stored: Mapping[str, Sequence[float | None]] | None) -> dict[str, Planned]:
    """What the column `planned` of a run says."""
    return {stage: Planned(*figures) for stage, figures in (stored or {}).items()}


def of_run(stored: Mapping[str, Any] | None) -> dict[str, Planned]:
    """The same from a whole plan as it is stored."""
    stages = [*stored["stages"], *stored.get("others", [])] if stored else []
    return {s["stage"]: Planned(s.get("flops"), s.get("tokens"), s.get("hours")) for s in stages}


def fraction(facts: Facts, plan: Mapping[str, Planned], status: RunStatus) -> float:
    """How far the run is: its training by FLOPs, the other stages alike. Without FLOPs all stages count alike."""
    if status is RunStatus.SUCCEEDED:  # also without a side stage that failed
        return 1.0
    flops = {stage: plan[stage].flops or 0.0 for stage in facts.shares if stage in plan}
    whole = sum(flops.values())
    others = [share for stage, share in facts.shares.items() if not flops.get(stage)]
    rest = sum(others) / len(others) if others else 1.0
    if not whole:
        return rest if facts.shares else 0.0
    trained = sum(facts.shares[stage] * part for stage, part in flops.items()) / whole
    return TRAINING_SHARE * trained + (1 - TRAINING_SHARE) * rest if others else trained


def eta_s(facts: Facts, plan: Mapping[str, Planned], status: RunStatus) -> float | None:
    """Seconds until the end of a run that is at work; None if the duration of some training that is left is unknown."""
    if status is not RunStatus.RUNNING:
        return None
    speed = _flops_per_s(facts, plan)
    seconds = 0.0
    for stage, share in facts.shares.items():
        said, figures = facts.etas[stage], plan.get(stage, Planned())
        if said is not None:
            seconds += said
        elif share >= 1:
            continue
        elif speed and figures.flops:
            seconds += (1 - share) * figures.flops / speed
        elif figures.hours is not None:
            seconds += (1 - share) * figures.hours * 3600
        elif stage in TRAINED:
            return None
    return seconds or None


def _flops_per_s(facts: Facts, plan: Mapping[str, Planned]) -> float | None:
    """What this run reaches, from the speed of the stage that reported one last."""
    timed = plan.get(facts.timed or "", Planned())
    if not timed.flops or not timed.tokens or not facts.tok_per_s:
        return None
    return facts.tok_per_s * timed.flops / timed.tokens


def _finite(value: object) -> float | None:
    """Events spell NaN and infinities as strings."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None

"""Compare the runs of a sweep at the rungs of its rule (`nanochat.planning.early`), and stop those that fall behind.

A comparison is stored and made only once, whatever the run reports later. It is also an event of the run, with its figures.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane import runs
from controlplane.lifecycle import Desired, Reason
from controlplane.models import Run, Rung, Stage, Sweep
from controlplane.transitions import gate
from nanochat.planning import early
from nanochat.planning.early import StopEarly
from nanochat.planning.plan import Plan

# The first value at or after a step, among the points in rows and those in chunks.
_FIRST = text(
    """
SELECT want.stage_id, found.step, found.value
FROM unnest(:stages, :steps) AS want (stage_id, step), LATERAL (
    SELECT f.step, f.value FROM (
        (SELECT p.step, p.value, p.attempt_no FROM metric_point p
         WHERE p.stage_id = want.stage_id AND p.key = :key AND p.step >= want.step
         ORDER BY p.step, p.attempt_no DESC LIMIT 1)
        UNION ALL
        (SELECT p.step, p.value, c.attempt_no FROM metric_chunk c CROSS JOIN LATERAL unnest(c.steps, c.lasts) AS p (step, value)
         WHERE c.stage_id = want.stage_id AND c.size = 1 AND c.key = :key AND c.last_step >= want.step AND p.step >= want.step
         ORDER BY p.step, c.attempt_no DESC LIMIT 1)
    ) AS f ORDER BY f.step, f.attempt_no DESC LIMIT 1
) AS found
"""
).bindparams(bindparam("stages", type_=ARRAY(BigInteger)), bindparam("steps", type_=ARRAY(BigInteger)))


class Measured(NamedTuple):
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class _Member:
    run_id: str
    stage_id: int
    steps: int
    tokens: int | None


def compare(session: Session, sweep: Sweep) -> int:
    """Make the comparisons that are due. The sweep must be locked. Returns how many runs were stopped."""
    if sweep.spec.get("stop_early") is None:
        return 0
    rule = StopEarly.model_validate(sweep.spec["stop_early"])
    stage, lower = early.where(rule.metric, rule.stage)
    members = _members(session, sweep.id, stage)
    made: dict[int, dict[str, Rung]] = defaultdict(dict)
    query = select(Rung).join(Run, Run.id == Rung.run_id).where(Run.sweep_id == sweep.id)
    for rung in session.scalars(query):
        made[rung.no][rung.run_id] = rung
    stopped = 0
    for no in count():
        waiting = [m for m in members if m.run_id not in made[no] and (no == 0 or _passed(made[no - 1], m.run_id))]
        new = _measured(session, rule, no, waiting)
        for run_id, found in new.items():
            made[no][run_id] = Rung(run_id=run_id, no=no, step=found.step, value=found.value, kept=True)
        for run_id in sorted(new):
            stopped += _decide(session, rule, made[no], made[no][run_id], stage, lower=lower)
        if not made[no]:
            return stopped
    return stopped


def _members(session: Session, sweep_id: str, stage: str) -> list[_Member]:
    query = select(Run.id, Run.planned, Stage.id).join(Stage, (Stage.run_id == Run.id) & (Stage.name == stage))
    found = []
    for run_id, planned, stage_id in session.execute(query.where(Run.sweep_id == sweep_id).order_by(Run.id)):
        figures = next((s for s in Plan.model_validate(planned).stages if s.stage == stage), None)
        if figures is not None and figures.steps is not None:
            found.append(_Member(run_id, stage_id, figures.steps, figures.tokens))
    return found


def _passed(before: Mapping[str, Rung], run_id: str) -> bool:
    return run_id in before and before[run_id].kept


def _measured(session: Session, rule: StopEarly, no: int, waiting: list[_Member]) -> dict[str, Measured]:
    """What the runs that have reached the rung reported there."""
    due = {m.stage_id: (m.run_id, step) for m in waiting if (step := early.rung_step(rule, no, m.steps, m.tokens)) is not None}
    if not due:
        return {}
    asked = {"stages": list(due), "steps": [step for _, step in due.values()], "key": rule.metric}
    return {due[stage_id][0]: Measured(step, value) for stage_id, step, value in session.execute(_FIRST, asked)}


def _decide(session: Session, rule: StopEarly, at: Mapping[str, Rung], rung: Rung, stage: str, *, lower: bool) -> int:
    """Store a comparison as a row and as an event, and stop the run if it falls behind. Returns 1 if it was stopped."""
    values = [other.value for other in at.values()]
    rung.kept = early.goes_on(rung.value, values, rule.keep, lower=lower)
    session.add(rung)
    finite = [value for value in values if math.isfinite(value)]
    with gate(session, rung.run_id) as g:
        of = next(s for s in g.stages() if s.name == stage)
        figures = {
            "metric": rule.metric,
            "rung": rung.no,
            "step": rung.step,
            "value": rung.value if math.isfinite(rung.value) else str(rung.value),
            "best": (min if lower else max)(finite) if finite else None,
            "runs": len(values),
            "keep": rule.keep,
            "goes_on": rung.kept,
        }
        g.note("sweep_compared", of, figures)
        stop = not rung.kept and not g.run.status.is_finished and g.run.desired is not Desired.CANCEL
    if stop:
        runs.cancel(session, rung.run_id, reason=Reason.STOPPED_EARLY)
    return int(stop)

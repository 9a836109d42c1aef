"""What a run's plan said and what happened, stage by stage."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.budgets import price_of
from controlplane.errors import NotFound
from controlplane.models import Attempt, Run, Stage
from controlplane.schemas import ComparedStage, ComparisonView
from nanochat.planning.plan import Plan


def comparison(session: Session, run_id: str) -> ComparisonView:
    """Plan against what happened, for every stage that has begun or was planned. Raises NotFound."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    plan = Plan.model_validate(run.planned) if run.planned else None
    planned = {s.stage: s for s in plan.stages} if plan else {}
    others = {s.stage: s for s in plan.others} if plan else {}
    now = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    query = select(Stage, Attempt).outerjoin(Attempt, Attempt.stage_id == Stage.id).where(Stage.run_id == run_id)
    rows: dict[str, ComparedStage] = {}
    for stage, attempt in session.execute(query.order_by(Stage.position, Attempt.no)):
        said = planned.get(stage.name)
        cost = said or others.get(stage.name)
        row = rows.setdefault(
            stage.name,
            ComparedStage(
                stage=stage.name,
                planned_hours=cost.hours if cost else None,
                planned_usd=cost.usd if cost else None,
                planned_tok_per_s=said.tok_per_s if said else None,
                planned_source=cost.source if cost else None,
                planned_steps=said.steps if said else None,
                hours=0.0,
                usd=0.0,
                tok_per_s=_number(stage.latest.get("tok_per_s")),
                mfu=_number(stage.latest.get("mfu")),
                attempts=0,
            ),
        )
        if attempt is None:
            continue
        hours = ((attempt.finished_at or now) - attempt.claimed_at).total_seconds() / 3600
        row.hours += hours
        row.attempts += 1
        if stage.queue == "gpu":
            price = price_of(run.usd_per_hour, attempt.gpu_name)
            row.usd = None if row.usd is None or price is None else row.usd + hours * max(1, attempt.gpus) * price
    return ComparisonView(run_id=run_id, stages=list(rows.values()))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

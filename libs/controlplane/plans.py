"""Plans by their hash, so that a submission can name the plan that it follows and learn what has changed since."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.errors import LedgerError
from controlplane.models import StoredPlan
from nanochat.planning.measured import Measured
from nanochat.planning.plan import RunPlan

KEPT = timedelta(days=7)
SHOWN = 20  # differences that an answer lists

Difference = tuple[str, str]  # field of the plan, what it was and is


class PlanOutdated(LedgerError):
    """The named plan is not what the run would do now. `differences` says in what."""

    def __init__(self, differences: list[Difference]):
        self.differences = differences
        super().__init__("the run would not follow this plan any more; plan again and submit with the new plan's hash")


def keep(session: Session, plan: RunPlan) -> None:
    """Remember the plan for a week, from its newest use on."""
    content = plan.model_dump(mode="json")
    session.execute(
        insert(StoredPlan)
        .values(hash=plan.hash, content=content)
        .on_conflict_do_update(index_elements=["hash"], set_={"used_at": func.now()})
    )
    session.execute(delete(StoredPlan).where(StoredPlan.used_at < func.now() - KEPT))


def figures_of(session: Session, named: str) -> list[Measured] | None:
    """What finished runs said when the plan with this hash was made. None if there is no such plan."""
    stored = session.get(StoredPlan, named)
    return None if stored is None else [Measured.model_validate(m) for m in stored.content["figures"].get("measured", [])]


def check(session: Session, named: str, now: RunPlan) -> None:
    """Compare the plan with this hash with that of the run as it would be now. Raises PlanOutdated."""
    if named == now.hash:
        return
    stored = session.get(StoredPlan, named)
    if stored is None:
        raise PlanOutdated([("plan", "no plan with this hash was made here in the last 7 days")])
    found = list(_differences(stored.content, now.model_dump(mode="json"), ""))
    more = [("…", f"{len(found) - SHOWN} more differences")] if len(found) > SHOWN else []
    raise PlanOutdated(found[:SHOWN] + more)


def _differences(before: Any, now: Any, path: str) -> Iterator[Difference]:
    if path == "hash" or before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(old, new, f"{path}.{place}")
    else:
        yield path, f"was {before}, is now {now}"

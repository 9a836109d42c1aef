"""Registration and heartbeats of workers, and the attempts that they hold."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.claims import Fence
from controlplane.errors import NotFound
from controlplane.lifecycle import LIVE_ATTEMPT, Drain, Reason
from controlplane.models import Attempt, Json, Stage, Worker


@dataclass(frozen=True, slots=True)
class Held:
    """A live attempt that a worker holds."""

    fence: Fence
    stage: str
    outputs: tuple[str, ...]
    process: Json
    stop_reason: Reason | None


def register(
    session: Session, worker_id: str, *, queue: str, hostname: str, slots: int = 1, gpus: int = 0, gpu_name: str = ""
) -> None:
    """Register a worker that starts, or starts again with the same id."""
    now = func.clock_timestamp()
    values = {
        "queue": queue,
        "hostname": hostname,
        "slots": slots,
        "gpus": gpus,
        "gpu_name": gpu_name,
        "draining": False,
        "drain": None,
        "registered_at": now,
        "heartbeat_at": now,
    }
    session.execute(insert(Worker).values(id=worker_id, **values).on_conflict_do_update(index_elements=["id"], set_=values))


def beat(session: Session, worker_id: str, *, draining: bool = False, state: Json | None = None) -> Drain | None:
    """Record a heartbeat, and return what a user asked of the worker. A draining worker gets no new stages.

    `state` is what the worker says about its machine; None leaves what it said before.
    """
    beaten = session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(
            heartbeat_at=func.clock_timestamp(),
            draining=True if draining else Worker.drain.is_not(None),
            **({} if state is None else {"state": state}),
        )
        .returning(Worker.drain)
        .execution_options(synchronize_session=False)
    ).first()
    return beaten.drain if beaten is not None else None


def drain(session: Session, worker_id: str, wish: Drain | None) -> None:
    """Let a worker take no new stages until its next start, or with None let it take them again. Raises NotFound."""
    values = {"drain": wish, "draining": wish is not None}
    found = session.scalar(update(Worker).where(Worker.id == worker_id).values(values).returning(Worker.id))
    if found is None:
        raise NotFound(f"there is no worker {worker_id!r}")


def retire(session: Session, worker_id: str) -> None:
    """Mark a worker that shut down in good order as lost at once, without waiting for missed heartbeats."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(heartbeat_at=func.to_timestamp(0), draining=True))


def held(session: Session, worker_id: str) -> list[Held]:
    """Live attempts of this worker. After a restart these are the attempts of its previous process."""
    query = (
        select(Attempt, Stage)
        .join(Stage, Stage.id == Attempt.stage_id)
        .where(Attempt.worker_id == worker_id, Attempt.status.in_(LIVE_ATTEMPT))
        .order_by(Attempt.id)
    )
    return [
        Held(
            Fence(stage.run_id, stage.id, attempt.id, attempt.no),
            stage.name,
            tuple(stage.outputs),
            attempt.process,
            attempt.stop_reason,
        )
        for attempt, stage in session.execute(query)
    ]

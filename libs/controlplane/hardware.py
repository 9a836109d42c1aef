"""How the GPUs and the machines of a run were while its stages ran: samples of their supervisors, and series of them for charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.claims import Fence, current, lost
from controlplane.errors import NotFound
from controlplane.hardware_schemas import HardwareView
from controlplane.models import Attempt, HardwareSample, Run

MACHINE = -1  # in the place of a GPU's number
KEPT = timedelta(days=3)  # of an attempt's samples: 26,000 of each device, about 4 MB
FIGURES = ("activity_pct", "memory_gib", "power_w", "temperature_c")

# Buckets hold equally many neighbouring samples: hours in which the run waited take no place.
_BUCKETS = text(
    f"""
WITH numbered AS (
    SELECT h.*, row_number() OVER device - 1 AS place, count(*) OVER (PARTITION BY h.worker_id, h.gpu) AS samples
    FROM hardware_sample h JOIN attempt a ON a.id = h.attempt_id JOIN stage s ON s.id = a.stage_id
    WHERE s.run_id = :run_id AND (:stage ::text IS NULL OR s.name = :stage)
    WINDOW device AS (PARTITION BY h.worker_id, h.gpu ORDER BY h.t, h.attempt_id)
), buckets AS (
    SELECT worker_id, gpu, date_part('epoch', max(t)) AS t,
           {", ".join(f"avg({f}) AS {f}, min({f}) AS min_{f}, max({f}) AS max_{f}" for f in FIGURES)}
    FROM numbered GROUP BY worker_id, gpu, place * least(:max_points, samples) / samples
)
SELECT worker_id, gpu, array_agg(t ORDER BY t) AS t,
       {", ".join(f"array_agg(round({c}::numeric, 2)::float8 ORDER BY t) AS {c}" for f in FIGURES for c in (f, f"min_{f}", f"max_{f}"))}
FROM buckets GROUP BY worker_id, gpu ORDER BY worker_id, gpu
"""
)


@dataclass(frozen=True, slots=True)
class Sample:
    """A device at Unix time `t`: a GPU by its number on the machine, or MACHINE. None: the device does not tell."""

    t: float
    gpu: int
    activity_pct: float | None
    memory_gib: float | None
    power_w: float | None = None
    temperature_c: float | None = None


def store(session: Session, fence: Fence, samples: Sequence[Sample], *, worker_id: str | None = None) -> None:
    """Store samples of one worker's machine. `worker_id` is given by a worker that has joined the attempt of another one.

    Samples that are stored already are left out, and those older than KEPT are deleted. Locks nothing that others wait for. Raises
    FenceLost.
    """
    own = session.scalar(select(Attempt.worker_id).where(*current(fence)))
    if own is None:
        raise lost(fence)
    if not samples:
        return
    of = {"attempt_id": fence.attempt_id, "worker_id": worker_id or own}
    rows = [
        {**of, "gpu": s.gpu, "t": datetime.fromtimestamp(s.t, UTC), **{figure: getattr(s, figure) for figure in FIGURES}}
        for s in samples
    ]
    session.execute(insert(HardwareSample).values(rows).on_conflict_do_nothing())
    session.execute(
        delete(HardwareSample)
        .where(
            HardwareSample.attempt_id == of["attempt_id"],
            HardwareSample.worker_id == of["worker_id"],
            HardwareSample.gpu.in_({s.gpu for s in samples}),
            HardwareSample.t < max(row["t"] for row in rows) - KEPT,
        )
        .execution_options(synchronize_session=False)
    )


def hardware(session: Session, run_id: str, *, stage: str | None = None, max_points: int = 500) -> HardwareView:
    """Each device of a run in at most `max_points` buckets. Raises NotFound."""
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")
    rows = session.execute(_BUCKETS, {"run_id": run_id, "stage": stage, "max_points": max_points}).mappings()
    return HardwareView.model_validate({"devices": [_device(row) for row in rows]})


def _device(row: Any) -> dict[str, Any]:
    figures = {
        figure: {"mean": row[figure], "min": row[f"min_{figure}"], "max": row[f"max_{figure}"]}
        for figure in FIGURES
        if any(value is not None for value in row[figure])
    }
    gpu = None if row["gpu"] == MACHINE else row["gpu"]
    return {"worker": row["worker_id"], "gpu": gpu, "t": row["t"], **dict.fromkeys(FIGURES), **figures}

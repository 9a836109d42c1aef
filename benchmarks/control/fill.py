"""A ledger as it is after a year of use: many runs, and metric points by the million."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import select, text

from controlplane import claims, dispatcher, runs, workers
from controlplane.claims import Claim
from controlplane.db import SessionFactory
from controlplane.models import Stage
from controlplane.timing import Timing
from nanochat.config.recipe import resolve

KEYS = tuple(f"metric_{n}" for n in range(8))
LEASE_S = 7200.0  # nobody renews the leases of the benchmark

# What ingest stores, made inside the database. The random walk of a loss would compress no better.
_POINTS = text(
    """
INSERT INTO metric_point (stage_id, attempt_no, key, step, t, value)
SELECT stage_id, 1, 'metric_' || k, step, now() + step * interval '1 s', sin(step * 0.01 + k)
FROM unnest(CAST(:stages AS bigint[])) AS stage_id, generate_series(0, 7) AS k, generate_series(0, :steps - 1) AS step
"""
)
_BUCKETS = text(
    """
INSERT INTO metric_bucket (stage_id, key, bucket, attempt_no, min, max, nonfinite, step, t, value)
SELECT stage_id, key, step / 32, 1, min(value), max(value), 0, max(step), max(t), (array_agg(value ORDER BY step DESC))[1]
FROM metric_point WHERE stage_id = ANY(CAST(:stages AS bigint[])) GROUP BY stage_id, key, step / 32
"""
)


def submit(ledger: SessionFactory, count: int) -> list[str]:
    made = []
    recipe = resolve("tiny")
    for n in range(count):
        with ledger.begin() as session:
            made.append(runs.submit(session, recipe, name=f"bench {n}").run.id)
    return made


def start(ledger: SessionFactory, run_id: str) -> Claim:
    """Claim the run's first stage as a worker does, and report its processes as started."""
    dispatcher.tick(ledger, lambda stage_id, queue: None)
    with ledger.begin() as session:
        workers.register(session, f"bench-{run_id}", queue="cpu", hostname="here", slots=1)
        stage = session.scalars(select(Stage).where(Stage.run_id == run_id).order_by(Stage.position).limit(1)).one()
        claim = claims.claim(session, stage.id, f"bench-{run_id}", timing=Timing(lease_ttl=LEASE_S))
        assert claim is not None
        claims.started(session, claim.fence, process={})
    return claim


def points(ledger: SessionFactory, stages: list[int], steps: int) -> int:
    """Give these stages points of all KEYS. Returns how many."""
    with ledger.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(_POINTS, {"stages": stages, "steps": steps})
        session.execute(_BUCKETS, {"stages": stages})
    return len(stages) * len(KEYS) * steps


def analyze(ledger: SessionFactory) -> None:
    """What autovacuum does within minutes."""
    with ledger.begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        session.execute(text("ANALYZE"))


def first_stages(ledger: SessionFactory, run_ids: list[str]) -> list[int]:
    with ledger() as session:
        return list(session.scalars(select(Stage.id).where(Stage.run_id.in_(run_ids), Stage.position == 0)))


def spool(path: Path, steps: int) -> int:
    """An events file as a training stage writes it. Returns the number of points."""
    with path.open("w", encoding="utf-8") as file:
        for step in range(steps):
            values = {key: 1.0 / (step + n + 1) for n, key in enumerate(KEYS)}
            event = {"v": 1, "seq": step, "t": 1.7e9 + step, "kind": "metric", "step": step, "values": values}
            file.write(json.dumps(event) + "\n")
    return steps * len(KEYS)

"""A ledger as it is after a year of use: many runs, and metric points by the million."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from benchmarks.control.stack import execute, has_database, url_of
from controlplane import claims, dispatcher, points, runs, workers
from controlplane.claims import Claim
from controlplane.db import SessionFactory, alembic_config, make_engine, migrate, sessions
from controlplane.models import Run, Stage
from controlplane.timing import Timing
from nanochat.config.recipe import resolve
from services.standalone.postgres import Postgres

KEYS = tuple(f"metric_{n}" for n in range(8))
LEASE_S = 7200.0  # nobody renews the leases of the benchmark


def filled(postgres: Postgres, runs: int, points: int, long: int) -> str:
    """The name of a database with that many runs and points, made unless an earlier benchmark left it.

    The first run has a series of `long` points for each of KEYS. The other runs share the rest.
    """
    name = f"filled_{runs}_{points}_{long}_{ScriptDirectory.from_config(alembic_config()).get_current_head()}"
    if has_database(postgres, name):
        return name
    execute(postgres, "DROP DATABASE IF EXISTS filling", "CREATE DATABASE filling")
    migrate(url := url_of(postgres, "filling"))
    engine = make_engine(url)
    ledger = sessions(engine)
    made = submit(ledger, runs)
    first = start(ledger, made[0]).fence.stage_id
    stored = store(ledger, [first], long)
    rest = [stage for stage in first_stages(ledger, made) if stage != first]
    if rest and points > stored:
        store(ledger, rest, max(1, (points - stored) // (len(KEYS) * len(rest))))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))  # what autovacuum does within minutes
    engine.dispose()
    execute(postgres, f"ALTER DATABASE filling RENAME TO {name}")
    return name


@contextlib.contextmanager
def copied(postgres: Postgres, name: str) -> Iterator[str]:
    """A copy of the database, for one benchmark."""
    execute(
        postgres,
        "DROP DATABASE IF EXISTS measured WITH (FORCE)",
        f"CREATE DATABASE measured TEMPLATE {name} STRATEGY FILE_COPY",
    )
    yield "measured"
    execute(postgres, "DROP DATABASE IF EXISTS measured WITH (FORCE)")


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


def store(ledger: SessionFactory, stages: list[int], steps: int) -> int:
    """Give these stages points of all KEYS, as ingest stores them. Returns how many."""
    series = {key: {step: (1.7e9 + step, math.sin(step * 0.01 + n)) for step in range(steps)} for n, key in enumerate(KEYS)}
    for stage_id in stages:
        with ledger.begin() as session:
            points.store(session, stage_id, 1, series)
    return len(stages) * len(KEYS) * steps


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


def run_ids(ledger: SessionFactory) -> list[str]:
    """In the order in which they were submitted."""
    with ledger() as session:
        return list(session.scalars(select(Run.id).order_by(Run.created_at)))

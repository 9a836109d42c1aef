"""The database and the broker stop while a stage runs. The stage runs to its end, and the ledger catches up."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sqlalchemy import select

from controlplane import db
from controlplane.lifecycle import StageStatus
from controlplane.models import Event
from nanochat.contract.contract import EVENTS, MANIFEST
from services.standalone.ports import free_port
from services.standalone.postgres import Postgres
from services.standalone.valkey import Valkey, binary
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.shards import shard_server


def test_a_stage_ends_well_while_database_and_broker_are_away(tmp_path: Path, home: Path) -> None:
    postgres, valkey = Postgres(tmp_path / "postgres", free_port()), Valkey(tmp_path / "valkey")
    postgres.start()
    valkey.start()
    broker: subprocess.Popen[bytes] | None = None
    db.migrate(postgres.url)
    platform = Platform(postgres.url, valkey.url, home)
    try:
        with shard_server(tmp_path / "shards") as shards:
            shards.busy.set()
            shards.retry_after = 2
            platform.start_loops()
            platform.start_worker("cpu")
            run = platform.submit(**shards.overrides)
            assert shards.asked.wait(60)

            postgres.stop()
            valkey.stop()
            shards.busy.clear()
            out = platform.output_dir(run, "data")
            until((out / MANIFEST).exists, "the stage to end without a ledger", 60)

            # With its old password and port, as a broker that comes back has.
            broker = subprocess.Popen([str(binary()), str(valkey.data_dir / "valkey.conf")], stdout=subprocess.DEVNULL)
            postgres.start()
            until(lambda: platform.stage(run, "data").status is StageStatus.SUCCEEDED, "the end to be reported", 60)
            until(lambda: platform.stage(run, "tok_train").attempts, "the worker to take the next stage", 90)
        with platform.factory.begin() as s:
            query = select(Event.seq).where(Event.stage_id.is_not(None), Event.seq.is_not(None), Event.run_id == run)
            stored = list(s.scalars(query.where(Event.attempt_id == 1).order_by(Event.id)))
        assert stored == list(range(len((out / EVENTS).read_text().splitlines())))
        assert len(platform.stage(run, "data").attempts) == 1
        lines = platform.worker_log("cpu").splitlines()
        told = [line for line in lines if "the ledger does not answer" in line and "[services.worker.renewal]" in line]
        assert told[0].endswith(f"[services.worker.renewal] attempt=1 run={run} stage=data")
    finally:
        platform.close()
        if broker is not None:
            broker.terminate()
            broker.wait()
        valkey.stop()
        postgres.stop()

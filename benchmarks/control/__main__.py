"""The control plane under load: 1,000 runs and 10 million metric points in Postgres, read and written over its own doors.

Latencies are those of one HTTP client; the API, Postgres and the client share the machine. Ours ingests a stage's events file as
a worker's relay does, in its own process; MLflow's tracking server takes batches of 1,000 metrics over REST, its only way in.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import Options, Parser, positive_int
from benchmarks.process import JobError, attempted, run_job
from benchmarks.result import Measurement, cpu, finish, measurement

LONG = 100_000  # steps of the long series
EVENTS = 50  # that each reader of a live stream waits for


@dataclass(frozen=True, kw_only=True)
class ControlOptions(Options):
    runs: int | None
    points: int | None
    readers: int | None
    no_peer: bool


def main(argv: list[str] | None = None) -> None:
    parser = Parser("control", __doc__)
    parser.add_argument("--runs", type=positive_int, metavar="N", help="runs in the ledger (1000; quick 50)")
    parser.add_argument("--points", type=positive_int, metavar="N", help="metric points in it (10,000,000; quick 100,000)")
    parser.add_argument("--readers", type=positive_int, metavar="N", help="readers of one live stream (200; quick 20)")
    parser.add_argument("--no-peer", action="store_true", help="without MLflow")
    options = parser.parse(ControlOptions, argv)
    rows: list[Measurement] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder, attempted("control", failed):
        for row in Load(options, Path(folder)).rows():
            rows.append(row)
            print(f"{row['name']:<52} {row['value']:>12,.1f} {row['unit']}", flush=True)
    finish("control", cpu(), rows, options)
    if failed:
        raise SystemExit("not everything could be measured")


class Load:
    """The sizes of this run, and what it does one after the other."""

    def __init__(self, options: ControlOptions, folder: Path):
        self.quick, self.peer, self.folder = options.quick, not options.no_peer, folder
        self.runs = options.runs or (50 if self.quick else 1000)
        self.points = options.points or (100_000 if self.quick else 10_000_000)
        self.readers = options.readers or (20 if self.quick else 200)
        self.times = 20 if self.quick else 100
        self.spooled = 1000 if self.quick else 40_000  # steps, each with 8 values
        self.peer_steps = 250 if self.quick else 2500

    def rows(self) -> Iterator[Measurement]:
        from benchmarks.control import fill, stack  # import SQLAlchemy and the services, so only after the options are checked

        with stack.running(self.folder) as up:
            made = fill.submit(up.ledger, self.runs)
            stages = fill.first_stages(up.ledger, made)
            claim = fill.start(up.ledger, made[0])
            long = 20_000 if self.quick else LONG
            stored = fill.points(up.ledger, [claim.fence.stage_id], long)
            rest = [stage for stage in stages if stage != claim.fence.stage_id]
            steps = max(1, (self.points - stored) // (8 * max(1, len(rest)))) if self.points > stored else 0
            for start in range(0, len(rest) if steps else 0, 50):
                stored += fill.points(up.ledger, rest[start : start + 50], steps)
            fill.analyze(up.ledger)
            print(f"{self.runs:,} runs and {stored:,} points", flush=True)
            yield from self.reading(up.http, made[0], long)
            yield self.submitting(up.http)
            yield from self.streaming(up, claim)
            yield from self.ingesting(up, fill.start(up.ledger, made[1]))

    def reading(self, http: Any, run: str, long: int) -> Iterator[Measurement]:
        for limit in (20, 200):
            must = 100.0 if limit == 200 else None
            yield self.p95(f"list of {limit} runs, p95", lambda n=limit: http.get("/v1/runs", params={"limit": n}), must, 50.0)
        yield self.p95("page of a run, p95", lambda: http.get(f"/v1/runs/{run}"), None, 50.0)
        for keys in (1, 8):
            params = {"keys": [f"metric_{n}" for n in range(keys)]}
            name = f"chart of {keys} x {long:,} points, p95"
            yield self.p95(name, lambda p=params: http.get(f"/v1/runs/{run}/metrics", params=p), 200.0, 50.0)

    def p95(self, name: str, ask: Callable[[], Any], must: float | None, aim: float) -> Measurement:
        for _ in range(3):  # caches, prepared statements
            ask().raise_for_status()
        took = []
        for _ in range(self.times):
            begun = time.monotonic()
            ask().raise_for_status()
            took.append(1000 * (time.monotonic() - begun))
        took.sort()
        return measurement(
            name, took[int(0.95 * len(took))], "ms", "lower", must=must, aim=aim, p50=round(took[len(took) // 2], 1)
        )

    def submitting(self, http: Any) -> Measurement:
        begun, count = time.monotonic(), self.times
        for n in range(count):
            http.post("/v1/runs", json={"recipe": "tiny", "name": f"submitted {n}"}).raise_for_status()
        return measurement("runs submitted by one client", count / (time.monotonic() - begun), "runs/s", "higher")

    def streaming(self, up: Any, claim: Any) -> Iterator[Measurement]:
        from controlplane import ingest

        path, connected = f"/v1/runs/{claim.fence.run_id}/events", self.folder / "connected"
        job = {
            "url": up.url,
            "key": up.key,
            "path": path,
            "events": EVENTS,
            "readers": self.readers,
            "connected": str(connected),
        }
        found: dict[str, Any] = {}
        reading = threading.Thread(target=lambda: found.update(run_job("benchmarks.control.readers", job, seconds=300)))
        reading.start()
        while not connected.exists() and reading.is_alive():
            time.sleep(0.05)
        before = load_of(up)
        for seq in range(EVENTS):
            event = {"v": 1, "seq": seq, "t": time.time(), "kind": "log", "level": "info", "message": f"event {seq}"}
            with up.ledger.begin() as session:
                ingest.events(session, claim.fence, [event])
            time.sleep(0.1)
        transactions, cpu_s, seconds = (now - then for now, then in zip(load_of(up), before, strict=True))
        reading.join()
        if found.get("events") != EVENTS * self.readers:
            raise RuntimeError(f"the readers of the stream got {found.get('events')} events, not {EVENTS * self.readers}")
        for share in ("p50", "p95"):
            yield measurement(f"event to each of {self.readers} readers, {share}", found[share], "ms", "lower")
        name = f"while {self.readers} readers wait"
        yield measurement(f"transactions of the database {name}", transactions / seconds, "1/s", "lower")
        yield measurement(f"CPU of the API {name}", 100 * cpu_s / seconds, "% of a core", "lower")

    def ingesting(self, up: Any, claim: Any) -> Iterator[Measurement]:
        from benchmarks.control import fill, peer
        from services.worker.storing import Storing

        count = fill.spool(self.folder / "events.jsonl", self.spooled)
        begun = time.monotonic()
        Storing(up.ledger, claim.fence, self.folder).rest()
        rate = count / (time.monotonic() - begun)
        name = "ingest of metric points"
        yield measurement(name, rate, "points/s", "higher", must=20_000, aim=100_000)
        if not self.peer:
            return
        try:
            with peer.running(up.peer_database, self.folder) as http:
                run, theirs = peer.write(http, self.peer_steps)
                yield measurement(f"{name}, beside MLflow", rate, "points/s", "higher", peer.NAME, theirs, must=10)
                for keys in (1, 8):
                    ours = self.p95("", lambda k=keys: self.chart(up.http, claim.fence.run_id, k), None, 50.0)["value"]
                    took = sorted(peer.read(http, run, keys) for _ in range(5))[2]
                    points = f"{self.spooled:,} steps, MLflow {self.peer_steps:,}"
                    yield measurement(f"read {keys} series of {points}", ours, "ms", "lower", peer.NAME, took)
        except JobError as err:
            yield measurement(f"{name}, beside MLflow", rate, "points/s", "higher", peer.NAME, must=10, reason=str(err))

    def chart(self, http: Any, run: str, keys: int) -> Any:
        return http.get(f"/v1/runs/{run}/metrics", params={"keys": [f"metric_{n}" for n in range(keys)]})


def load_of(up: Any) -> tuple[float, float, float]:
    """Transactions of the database so far, the API's CPU seconds, and the time."""
    from sqlalchemy import text

    with up.ledger.begin() as session:
        session.execute(text("SELECT pg_stat_clear_snapshot()"))
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        transactions = session.scalar(text(query))
    used = up.api.cpu_times()
    return float(transactions), used.user + used.system, time.monotonic()


if __name__ == "__main__":
    main()

"""The control plane under load: 1,000 runs and 10 million metric points in Postgres, read and written over its own doors.

Latencies are those of one HTTP client; the API, Postgres and the client share the machine. Ours ingests a stage's events file as
a worker's relay does, in its own process. MLflow's tracking server takes batches of at most 1,000 metrics over REST, its only way in.
`cpu_ms` and `cpu_rate` count the CPU time of the servers and Postgres alone, which other work on the machine changes little.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import Options, Parser, folder, positive_int
from benchmarks.process import JobError, attempted, run_job
from benchmarks.result import Measurement, cpu, finish, measurement

EVENTS = 50  # that each reader of a live stream waits for


@dataclass(frozen=True, kw_only=True)
class ControlOptions(Options):
    runs: int | None
    points: int | None
    readers: int | None
    folder: Path | None
    no_peer: bool


def main(argv: list[str] | None = None) -> None:
    parser = Parser("control", __doc__)
    parser.add_argument("--runs", type=positive_int, metavar="N", help="runs in the ledger (1000; quick 50)")
    parser.add_argument("--points", type=positive_int, metavar="N", help="metric points in it (10,000,000; quick 100,000)")
    parser.add_argument("--readers", type=positive_int, metavar="N", help="readers of one live stream (200; quick 20)")
    parser.add_argument("--folder", type=folder, metavar="FOLDER", help="keep the filled database here, and use it again")
    parser.add_argument("--no-peer", action="store_true", help="without MLflow")
    options = parser.parse(ControlOptions, argv)
    rows: list[Measurement] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch, attempted("control", failed):
        for row in Load(options, Path(scratch)).rows():
            rows.append(row)
            peer = "" if row["ratio"] is None else f"  {row['peer']}: {row['peer_value']:,.1f}  ratio {row['ratio']:.1f}"
            print(f"{row['name']:<52} {row['value']:>12,.1f} {row['unit']}{peer}", flush=True)
    finish("control", cpu(), rows, options)
    if failed:
        raise SystemExit("not everything could be measured")


class Load:
    """The sizes of this run, and what it does one after the other."""

    def __init__(self, options: ControlOptions, scratch: Path):
        self.quick, self.peer, self.scratch = options.quick, not options.no_peer, scratch
        self.data = options.folder or scratch
        self.runs = options.runs or (50 if self.quick else 1000)
        self.points = options.points or (100_000 if self.quick else 10_000_000)
        self.readers = options.readers or (20 if self.quick else 200)
        self.long = 2000 if self.quick else 100_000  # steps of the long series
        self.times = 20 if self.quick else 100
        self.spooled = 1000 if self.quick else 40_000  # steps, each with 8 values
        self.peer_steps = 250 if self.quick else 2500
        self.ours: dict[str, float] = {}  # what MLflow is compared with

    def rows(self) -> Iterator[Measurement]:
        from benchmarks.control import fill, stack  # import SQLAlchemy and the services, so only after the options are checked
        from services.standalone.postgres import Postgres

        for path in (self.data, self.scratch):
            path.chmod(0o711)  # Postgres runs as another user when we are root
        with Postgres(self.data / "postgres") as postgres:
            name = fill.filled(postgres, self.runs, self.points, self.long)
            print(f"{self.runs:,} runs and {self.points:,} points", flush=True)
            with fill.copied(postgres, name) as database, stack.running(postgres, database, self.scratch) as up:
                runs = fill.run_ids(up.ledger)
                yield from self.reading(up, runs[0])
                yield self.submitting(up)
                yield from self.streaming(up, fill.start(up.ledger, runs[1]))
                yield self.ingesting(up, fill.start(up.ledger, runs[2]))
            if self.peer:
                yield from self.comparing(postgres)

    def reading(self, up: Any, run: str) -> Iterator[Measurement]:
        for limit in (20, 200):
            must = 100.0 if limit == 200 else None
            yield self.p95(
                up.meter, f"list of {limit} runs", lambda n=limit: up.http.get("/v1/runs", params={"limit": n}), must, 50.0
            )
        yield self.p95(up.meter, "page of a run", lambda: up.http.get(f"/v1/runs/{run}"), None, 50.0)
        for keys in (1, 8):
            params = {"keys": [f"metric_{n}" for n in range(keys)]}
            name = f"chart of {keys} x {self.long:,} points"
            yield self.p95(up.meter, name, lambda p=params: up.http.get(f"/v1/runs/{run}/metrics", params=p), 200.0, 50.0)

    def p95(self, meter: Any, name: str, ask: Callable[[], Any], must: float | None, aim: float) -> Measurement:
        took, cpu_ms = self.timed(meter, ask, self.times)
        self.ours[name] = p50 = took[len(took) // 2]
        p95 = took[int(0.95 * len(took))]
        return measurement(f"{name}, p95", p95, "ms", "lower", must=must, aim=aim, p50=round(p50, 1), cpu_ms=round(cpu_ms, 1))

    @staticmethod
    def timed(meter: Any, ask: Callable[[], Any], times: int, warm: int = 3) -> tuple[list[float], float]:
        """Milliseconds of each request, sorted, and the CPU time that one takes."""
        for _ in range(warm):  # caches, prepared statements
            ask().raise_for_status()
        took = []
        used = meter.seconds()
        for _ in range(times):
            begun = time.monotonic()
            ask().raise_for_status()
            took.append(1000 * (time.monotonic() - begun))
        return sorted(took), 1000 * (meter.seconds() - used) / times

    def submitting(self, up: Any) -> Measurement:
        used, begun, count = up.meter.seconds(), time.monotonic(), self.times
        for n in range(count):
            up.http.post("/v1/runs", json={"recipe": "tiny", "name": f"submitted {n}"}).raise_for_status()
        self.ours["submit"] = count / (time.monotonic() - begun)
        cpu_rate = round(count / (up.meter.seconds() - used), 1)
        return measurement("runs submitted by one client", self.ours["submit"], "runs/s", "higher", cpu_rate=cpu_rate)

    def streaming(self, up: Any, claim: Any) -> Iterator[Measurement]:
        from controlplane import ingest

        connected = self.scratch / "connected"
        job = {
            "url": up.url,
            "key": up.key,
            "path": f"/v1/runs/{claim.fence.run_id}/events",
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

    def ingesting(self, up: Any, claim: Any) -> Measurement:
        from benchmarks.control import fill
        from services.worker.storing import Storing

        count = fill.spool(self.scratch / "events.jsonl", self.spooled)
        used, begun = up.meter.seconds() + time.process_time(), time.monotonic()
        Storing(up.ledger, claim.fence, self.scratch).rest()
        self.ours["ingest"] = count / (time.monotonic() - begun)
        cpu_rate = round(count / (up.meter.seconds() + time.process_time() - used))
        name = "ingest of metric points"
        return measurement(name, self.ours["ingest"], "points/s", "higher", must=20_000, aim=100_000, cpu_rate=cpu_rate)

    def comparing(self, postgres: Any) -> Iterator[Measurement]:
        """Medians of MLflow beside our own."""
        from benchmarks.control import peer

        with contextlib.ExitStack() as started:
            try:
                mlflow = started.enter_context(peer.running(postgres, self.scratch, self.runs, self.long))
            except JobError as err:
                name = "ingest of metric points, beside MLflow"
                yield measurement(name, self.ours["ingest"], "points/s", "higher", peer.NAME, must=10, reason=str(err))
                return
            theirs, how = peer.logged(mlflow, self.peer_steps)
            name = f"ingest, beside {how}"
            yield measurement(name, self.ours["ingest"], "points/s", "higher", peer.NAME, theirs, must=10)
            begun = time.monotonic()
            for _ in range(20):
                peer.submit(mlflow)
            theirs = 20 / (time.monotonic() - begun)
            yield measurement("runs made by one client", self.ours["submit"], "runs/s", "higher", peer.NAME, theirs)
            asked: list[tuple[str, str, Callable[[], Any]]] = [
                (f"list of {n} runs", "runs/search", lambda n=n: peer.listed(mlflow, n)) for n in (20, 200)
            ]
            asked += [("page of a run", "runs/get", lambda: peer.page(mlflow))]
            for keys in (1, 8):
                chart = f"chart of {keys} x {self.long:,} points"
                asked += [(chart, "get-history-bulk-interval", lambda k=keys: peer.chart(mlflow, k))]
                asked += [(chart, "get-history", lambda k=keys: peer.history(mlflow, k))]
            for name, call, ask in asked:
                took, cpu_ms = self.timed(mlflow.meter, ask, 3, warm=1)  # seconds each
                title = f"{name}, beside {call}"
                more = {"peer_cpu_ms": round(cpu_ms, 1)}
                yield measurement(title, self.ours[name], "ms", "lower", peer.NAME, took[len(took) // 2], **more)


def load_of(up: Any) -> tuple[float, float, float]:
    """Transactions of the database so far, the API's CPU seconds, and the time."""
    from sqlalchemy import text

    with up.ledger.begin() as session:
        session.execute(text("SELECT pg_stat_clear_snapshot()"))
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        transactions = session.scalar(text(query))
    return float(transactions), up.api.seconds(), time.monotonic()


if __name__ == "__main__":
    main()

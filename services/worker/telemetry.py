"""What a worker reports of itself to Prometheus.

It is collected with the heartbeats, and a scrape reads what was collected: monitoring never waits for the ledger, and the ledger never
notices how many programs scrape.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason
from controlplane.vitals import HeldVitals, OwnVitals, of_worker
from nanochat.contract.contract import EVENTS
from nanochat.contract.lease import LEASE
from services.metrics import gauge
from services.worker import machine
from services.worker.leftovers import last_seq
from services.worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the ledger is behind an attempt, and since when its supervisor has not written the lease file."""

    attempt: HeldVitals
    events: int
    silent_s: float | None


class Telemetry(Collector):
    def __init__(self, settings: Settings, worker_id: str):
        self._settings, self._id = settings, worker_id
        self._own: OwnVitals | None = None
        self._lags: list[Lag] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.ticks = Counter("nanochat_loop_ticks", "Ticks of a loop of this worker", ("loop",), registry=self.registry)
        self.ticked = Gauge(
            "nanochat_loop_ticked_timestamp_seconds", "Time of the last tick", ("loop",), registry=self.registry
        )
        self.failures = Counter("nanochat_duty_failures", "Failed duties of the keeper", ("duty",), registry=self.registry)

    def tick(self, loop: str) -> None:
        self.ticks.labels(loop).inc()
        self.ticked.labels(loop).set_to_current_time()

    def update(self, factory: SessionFactory) -> None:
        """Collect. Raises SQLAlchemyError if the ledger does not answer; what it said before is then no longer reported."""
        self._own, self._lags = None, []
        with factory() as session:
            own = of_worker(session, self._id)
        self._lags = [self._lag(attempt) for attempt in own.held]
        self._own = own

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        own, lags = self._own, self._lags
        yield gauge("ledger_up", "1 if the ledger answered to the last heartbeat", ((), own is not None))
        total, free = machine.disk(self._settings.home)
        yield gauge("disk_free_bytes", "Free space at NANOCHAT_HOME", ((), free))
        yield gauge("disk_total_bytes", "Size of the disk at NANOCHAT_HOME", ((), total))
        if own is None:
            return
        yield gauge("attempts", "Attempts that run here", ((), len(own.held)))
        ids = ("run", "stage", "attempt")
        named = [((lag.attempt.run_id, lag.attempt.stage, str(lag.attempt.no)), lag) for lag in lags]
        yield gauge(
            "lease_remaining_seconds", "Until the lease runs out", *((i, lag.attempt.lease_s) for i, lag in named), labels=ids
        )
        silent = [(i, lag.silent_s) for i, lag in named if lag.silent_s is not None]
        yield gauge("supervisor_silent_seconds", "Since the supervisor wrote the lease file", *silent, labels=ids)
        yield gauge(
            "spool_lag_events", "Events on disk that the ledger lacks", *((i, lag.events) for i, lag in named), labels=ids
        )
        used = CounterMetricFamily("nanochat_gpu_seconds", "Seconds of GPUs, each counted by itself")
        used.add_metric((), own.gpu_seconds)
        yield used
        ended = CounterMetricFamily(
            "nanochat_attempts_ended", "Attempts by the reason for which they ended", labels=("reason",)
        )
        for reason in Reason:
            ended.add_metric((reason.value,), own.ended.get(reason, 0))
        yield ended

    def _lag(self, attempt: HeldVitals) -> Lag:
        out = self._settings.output_dir(attempt.run_id, attempt.stage, attempt.no)
        try:
            silent_s = max(0.0, time.time() - (out / LEASE).stat().st_mtime)
        except OSError:
            silent_s = None
        try:
            last = last_seq(out / EVENTS)
        except OSError:
            last = -1
        return Lag(attempt, max(0, last - attempt.event_seq), silent_s)

"""Prometheus metrics of the control API: its own requests, and what the ledger and the broker say about queues and workers.

Gauges from the ledger are the same in every API process; aggregate them with max, not with sum. While the database does not
answer, they are missing instead of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason, RunStatus
from controlplane.vitals import Vitals, WorkerVitals, vitals
from services.api.publisher import Publisher
from services.http_metrics import RequestMetrics
from services.metrics import gauge

QUEUES = ("cpu", "gpu")


class Telemetry(RequestMetrics):
    def observe(self, ledger: SessionFactory, publisher: Publisher) -> None:
        """Report the state of the platform whenever the metrics are read."""
        self.registry.register(_Platform(ledger, publisher))


class _Platform(Collector):
    def __init__(self, ledger: SessionFactory, publisher: Publisher):
        self._ledger, self._publisher = ledger, publisher

    def describe(self) -> list[Metric]:
        return []  # so that registering it asks neither the database nor the broker

    def collect(self) -> Iterator[Metric]:
        now = self._vitals()
        yield gauge("database_up", "1 while the database answers", ((), now is not None))
        if now is not None:
            yield from _of_ledger(now)
        calls = self._calls()
        yield gauge("broker_up", "1 while the broker answers", ((), calls is not None))
        if calls is not None:
            yield gauge("broker_messages", "Wake-up calls that wait in the broker", *calls, labels=("queue",))

    def _vitals(self) -> Vitals | None:
        try:
            with self._ledger() as session:
                return vitals(session)
        except SQLAlchemyError:
            return None

    def _calls(self) -> list[tuple[tuple[str, ...], float]] | None:
        try:
            return [((queue,), self._publisher.waiting(queue)) for queue in QUEUES]
        except Exception:  # kombu passes on errors of the Redis client and of the operating system
            return None


def _of_ledger(now: Vitals) -> Iterator[Metric]:
    runs = [((status.value,), now.runs.get(status, 0)) for status in RunStatus]
    yield gauge("runs", "Runs by status", *runs, labels=("status",))
    stages = [((load.queue, load.status.value), load.count) for load in now.unfinished]
    yield gauge("stages", "Unfinished stages by status", *stages, labels=("queue", "status"))
    waits = dict.fromkeys(QUEUES, 0.0)
    for load in now.unfinished:
        waits[load.queue] = max(waits.get(load.queue, 0.0), load.longest_s)
    waiting = [((queue,), waited) for queue, waited in waits.items()]
    yield gauge("queue_wait_seconds", "How long the oldest queued stage has waited", *waiting, labels=("queue",))
    ended = CounterMetricFamily("nanochat_attempts_ended", "Attempts by the reason for which they ended", labels=("reason",))
    for reason in Reason:
        ended.add_metric((reason.value,), now.ended.get(reason, 0))
    yield ended
    for name, text, read in WORKER_GAUGES:
        known = [((w.id, w.queue), value) for w in now.workers if (value := read(w)) is not None]
        yield gauge(f"worker_{name}", text, *known, labels=("worker", "queue"))
    loops = [((name,), age) for name, age in now.loops.items()]
    yield gauge("loop_tick_age_seconds", "Since the last tick of a control loop", *loops, labels=("loop",))
    yield gauge("checkpoint_bytes", "Size of the checkpoints that are on disk", ((), now.checkpoint_bytes))
    yield gauge("webhook_deliveries_waiting", "Deliveries of webhooks that have not ended", ((), now.deliveries_waiting))


WORKER_GAUGES: tuple[tuple[str, str, Callable[[WorkerVitals], float | None]], ...] = (
    ("heartbeat_age_seconds", "Since the worker's last heartbeat", lambda w: w.silent_s),
    ("slots", "Attempts that the worker can hold", lambda w: w.slots),
    ("attempts", "Attempts that the worker holds", lambda w: w.attempts),
    ("draining", "1 while the worker takes no more stages", lambda w: w.draining),
    ("lease_remaining_seconds", "Until the first of its leases runs out", lambda w: w.lease_s),
)

"""The Celery app. A message is only a wake-up call with a stage's id, so nothing of Celery's own retrying is used."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Exchange
from kombu.entity import Queue as Route

from services.worker.settings import SLOTS, Queue, Settings

TASK = "nanochat.run_stage"
VISIBILITY_TIMEOUT_S = 3600  # means little with early acks, but must agree in its three places


def settings_for(queue: Queue) -> dict[str, Any]:
    """Celery's settings, each with its reason."""
    transport = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_keepalive": True,
        "socket_connect_timeout": 10,
        "health_check_interval": 25,
        "global_keyprefix": "nanoctl:",
        "client_name": f"nanochat-worker-{queue}",
    }
    return {
        # A message is gone once the task starts: the lease in Postgres is the mark of work in flight.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,  # it would restart a stage without end
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # never park a stage behind one of four hours
        "worker_concurrency": SLOTS[queue],
        "worker_max_tasks_per_child": 1,  # a fresh process per stage
        "task_ignore_result": True,
        "result_backend": None,
        "task_track_started": False,
        "task_time_limit": None,  # a hard limit kills without a checkpoint; deadlines are the supervisor's
        "task_soft_time_limit": None,
        # On by default from Celery 6: a reconnect of Redis would kill an eight-GPU run.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever; the default gives up after 100
        "broker_transport_options": transport,
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_S},
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        # SIGTERM tells us at once and then waits for the stage; with a soft timeout it would tell us only afterwards.
        "worker_soft_shutdown_timeout": 0.0,
        "worker_hijack_root_logger": False,
        "accept_content": ["json"],
        "task_serializer": "json",
        "timezone": "UTC",
        "enable_utc": True,
        "task_default_queue": "control",  # nothing lands on gpu by mistake
        "task_create_missing_queues": False,
        "task_queues": [_route(name) for name in (*SLOTS, "control")],
    }


def _route(name: str) -> Route:
    return Route(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]


def make_app(settings: Settings, queue: Queue) -> Celery:
    app = Celery("nanochat", broker=settings.redis_url, set_as_current=False)
    app.conf.update(settings_for(queue))
    return app

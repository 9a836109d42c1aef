"""The Celery app. A message is only a wake-up call with the id of a stage, so Celery's own retries are off."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Exchange
from kombu.entity import Queue as Route

from services.worker.settings import SLOTS, Queue, Settings

TASK, JOIN = "nanochat.run_stage", "nanochat.join_stage"
VISIBILITY_TIMEOUT_S = 3600  # has little effect with early acks, but must be equal in all three places


def settings_for(queue: Queue, slots: int) -> dict[str, Any]:
    """Celery's settings and the reasons for them."""
    transport = {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "socket_keepalive": True,
        "socket_connect_timeout": 10,
        "health_check_interval": 25,
        "global_keyprefix": "nanoctl:",
        "client_name": f"nanochat-worker-{queue}",
    }
    return {
        # A message is removed when the task starts. The lease in Postgres says which work is in progress.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,  # True would restart a failing stage for ever
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # no stage waits behind one that runs for hours
        "worker_concurrency": slots,
        "worker_max_tasks_per_child": 1,  # a fresh process per stage
        "task_ignore_result": True,
        "result_backend": None,
        "task_track_started": False,
        "task_time_limit": None,  # a hard limit kills without a checkpoint; the supervisor keeps the deadlines
        "task_soft_time_limit": None,
        # True by default from Celery 6 on. A reconnect to Redis would then kill a run on eight GPUs.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_transport": "services.worker.broker:Transport",
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # for ever; the default gives up after 100
        "broker_transport_options": transport,
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_S},
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        # 0: SIGTERM calls the shutdown handler at once and then waits for the stage. With a timeout the handler runs only after it.
        "worker_soft_shutdown_timeout": 0.0,
        "worker_hijack_root_logger": False,
        "accept_content": ["json"],
        "task_serializer": "json",
        "timezone": "UTC",
        "enable_utc": True,
        "task_default_queue": "control",  # a message without a queue must not reach gpu
        "task_create_missing_queues": False,
        "task_queues": [_route(name) for name in (*SLOTS, "control")],
    }


def _route(name: str) -> Route:
    return Route(name, Exchange(name), routing_key=name)  # type: ignore[no-untyped-call]


def make_app(settings: Settings, queue: Queue) -> Celery:
    app = Celery("nanochat", broker=settings.redis_url, set_as_current=False)
    app.conf.update(settings_for(queue, settings.slots(queue)))
    return app

"""Celery's settings, as a running worker reports them. Setting an option does not prove that it takes effect."""

from __future__ import annotations

import subprocess
import sys

import redis

from services.worker.settings import SLOTS, Queue
from tests.waiting import until
from tests.worker.platform import Platform

# The table of the design, written out again on purpose.
EXPECTED = {
    "task_acks_late": False,
    "task_reject_on_worker_lost": False,
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    "worker_max_tasks_per_child": 1,
    "task_ignore_result": True,
    "result_backend": None,
    "task_track_started": False,
    "task_time_limit": None,
    "task_soft_time_limit": None,
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "visibility_timeout": 3600,
    "worker_soft_shutdown_timeout": 0.0,
    "worker_hijack_root_logger": False,
    "accept_content": ["json"],
    "task_serializer": "json",
    "timezone": "UTC",
    "enable_utc": True,
    "task_default_queue": "control",
    "task_create_missing_queues": False,
}


def test_a_running_worker_has_every_setting(platform: Platform) -> None:
    queue: Queue = "cpu"
    platform.start_worker(queue)
    answers = until(lambda: platform.app.control.inspect(timeout=2.0).conf(with_defaults=True), "the worker's answer")
    (conf,) = answers.values()
    assert {name: conf.get(name) for name in EXPECTED} == EXPECTED
    assert conf["worker_concurrency"] == SLOTS[queue]
    transport = conf["broker_transport_options"]
    assert transport["visibility_timeout"] == conf["result_backend_transport_options"]["visibility_timeout"] == 3600
    assert (transport["socket_keepalive"], transport["socket_connect_timeout"], transport["health_check_interval"]) == (
        True,
        10,
        25,
    )
    assert redis_keys(platform)  # inspect hides the value of what has "key" in its name
    (queues,) = platform.app.control.inspect(timeout=2.0).active_queues().values()
    assert [q["name"] for q in queues] == [queue]


def test_a_worker_announces_itself_and_signs_off(platform: Platform) -> None:
    platform.start_worker("gpu", NANOCHAT_WORKER_ID="node-7")
    row = platform.registered("node-7")
    assert row is not None
    assert (row.queue, row.slots, row.gpus, row.draining) == ("gpu", 1, 0, False)
    assert platform.stop_worker("gpu") == 0
    row = platform.registered("node-7")
    assert row is not None
    assert row.draining


def test_missing_settings_are_named(platform: Platform) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.worker", "--queue", "cpu"], env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert "NANOCHAT_DATABASE_URL" in done.stderr


def redis_keys(platform: Platform) -> list[bytes]:
    with redis.Redis.from_url(platform.settings.redis_url) as client:
        keys: list[bytes] = client.keys("nanoctl:*")  # type: ignore[assignment]
    return keys

"""The API's wake-up call reaches the worker. The services cannot import each other, so their agreement is tested here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kombu import Consumer

from services.api import publisher
from services.worker import app as worker
from services.worker.settings import Settings as WorkerSettings


@pytest.mark.parametrize("queue", ["cpu", "gpu"])
def test_a_call_reaches_the_worker_of_its_queue_and_names_its_task_and_stage(
    redis_url: str, queue: Any, database_url: str
) -> None:
    calls = publisher.Publisher(redis_url)
    assert calls.ping()
    calls(42, queue)
    calls.close()

    app = worker.make_app(WorkerSettings(database_url=database_url, redis_url=redis_url), queue)
    heard: list[Any] = []
    with app.connection_for_read() as connection:
        mine = [q for q in app.conf.task_queues if q.name == queue]
        with Consumer(connection, mine, callbacks=[lambda body, message: (heard.append((body, message)), message.ack())]):
            connection.drain_events(timeout=5)
    body, message = heard[0]
    assert message.headers["task"] == worker.TASK == publisher.TASK
    assert message.delivery_info["routing_key"] == queue
    assert (body if isinstance(body, list) else json.loads(body))[0] == [42]


def test_without_a_broker_the_call_fails_at_once_and_says_so() -> None:
    calls = publisher.Publisher("redis://127.0.0.1:1/0")
    assert not calls.ping()
    with pytest.raises(Exception, match="Connection refused"):
        calls(42, "cpu")

"""What lies in the broker's list and is no message: the worker throws it away and goes on."""

from __future__ import annotations

import redis

from tests.waiting import until
from tests.worker.platform import Platform

GARBAGE = (
    b"not json",
    b"\xff\xfe",
    b"[]",
    b"3",
    b"null",
    b"{}",
    b'{"body": 5}',
    b'{"properties": {}, "body": ""}',
    b'"text"',
    b"[" * 5000,
)


def test_garbage_in_the_list_ends_no_worker(platform: Platform) -> None:
    process = platform.start_worker("cpu")
    with redis.Redis.from_url(platform.settings.redis_url) as client:
        client.lpush("nanoctl:cpu", *GARBAGE)
        platform.publish(404_404, "cpu")
        until(lambda: "a call for stage 404404" in platform.worker_log("cpu"), "the message behind the garbage")
        assert client.llen("nanoctl:cpu") == 0
    assert process.poll() is None
    assert platform.worker_log("cpu").count("is not a message") >= 3

"""Doubled and outdated calls cost the worker next to nothing, and hold up no stage that waits."""

from __future__ import annotations

import redis

from controlplane.lifecycle import StageStatus
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.shards import shard_server

MANY = 200


def test_a_flood_of_outdated_calls_holds_up_no_stage(platform: Platform) -> None:
    platform.start_worker("cpu")
    for _ in range(MANY):
        platform.publish(404_404, "cpu")
    with shard_server(platform.home / "shards") as shards:
        run = platform.submit(**shards.overrides)
        platform.start_loops()
        until(lambda: platform.stage(run, "data").status is StageStatus.SUCCEEDED, "the stage behind the calls", 60)
    with redis.Redis.from_url(platform.settings.redis_url) as client:
        assert client.llen("nanoctl:cpu") <= 1
    assert platform.worker_log("cpu").count("threw away a call for stage 404404") == MANY

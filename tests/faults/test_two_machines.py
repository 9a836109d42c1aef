"""Two workers train one stage of a real recipe together, over gloo; and the run is extended and forked from its checkpoints."""

from __future__ import annotations

import math
from statistics import mean

import pytest

from controlplane import forks, metrics, views
from controlplane.lifecycle import AttemptStatus, StageStatus
from controlplane.schemas import CheckpointView, StageView
from nanochat.config.recipe import resolve
from tests.faults.test_training_dies import MICRO
from tests.waiting import until
from tests.worker.platform import Platform

STEPS = 80
TWO = {"NANOCHAT_NODES": "2", "NANOCHAT_ADDRESS": "127.0.0.1"}
RECIPE = {**MICRO, "base.device_batch_size": 2, "base.num_iterations": STEPS, "base.save_every": 10, "base.keep_checkpoints": 5}
BASE = "base_train"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_outlives_either_machine_and_is_extended(platform: Platform) -> None:
    platform.start_loops()
    platform.start_worker("cpu")
    for name in ("one", "two"):
        platform.start_worker("gpu", name, **TWO)
    run = platform.submit(**RECIPE)

    for number, of_leader in ((1, True), (2, False)):
        saved = furthest(platform, run)
        until(lambda saved=saved: furthest(platform, run) > saved or ended(platform, run), "a checkpoint", 400, every=0.02)  # type: ignore[misc]
        attempt = platform.stage(run, BASE).attempts[-1]
        assert (attempt.no, attempt.status) == (number, AttemptStatus.RUNNING)
        other = {"one": "two", "two": "one"}[attempt.worker]
        assert (platform.output_dir(run, BASE, number) / f"stdout.{other}.log").exists()  # it does take part
        lost = attempt.worker if of_leader else other
        platform.kill_worker(lost)
        platform.start_worker("gpu", lost, **TWO)
    stage = finished(platform, run)
    assert [a.status for a in stage.attempts[2:]] == [AttemptStatus.SUCCEEDED]
    assert all(a.resumed_from_step for a in stage.attempts[1:])
    losses = curve(platform, run)
    assert (min(losses) <= 2, max(losses)) == (True, STEPS)
    platform.cancel(run)

    longer = fork(platform, run, checkpoints(platform, run)[-1], **{"base.num_iterations": STEPS + 20})
    assert [a.resumed_from_step for a in finished(platform, longer).attempts] == [STEPS]
    more = curve(platform, longer)
    assert (min(more) > STEPS, max(more)) == (True, STEPS + 20)
    before, after = [v for step, v in losses.items() if step > STEPS - 20], list(more.values())
    assert abs(mean(after) - mean(before)) < 0.5 < math.log(512) - mean(before)  # log(512): an untrained model
    assert checkpoints(platform, longer)[-1].step == STEPS + 20
    platform.cancel(longer)

    start = checkpoints(platform, run)[0]
    other_rate = fork(platform, run, start, **{"base.optim.matrix_lr": 0.01})
    assert [a.resumed_from_step for a in finished(platform, other_rate).attempts] == [start.step]
    steps = list(curve(platform, other_rate))
    assert (steps[0] > start.step, steps[-1]) == (True, STEPS)


def fork(platform: Platform, run: str, start: CheckpointView, **overrides: float) -> str:
    with platform.factory.begin() as s:
        recipe = resolve("tiny", {**RECIPE, **overrides})
        return forks.fork(s, run, recipe, from_checkpoint=start.id).run.id


def finished(platform: Platform, run: str) -> StageView:
    until(lambda: ended(platform, run), "the end of pretraining", 600, every=0.2)
    stage = platform.stage(run, BASE)
    assert stage.status is StageStatus.SUCCEEDED, stage.message
    return stage


def ended(platform: Platform, run: str) -> bool:
    return platform.stage(run, BASE).status.is_finished


def checkpoints(platform: Platform, run: str) -> list[CheckpointView]:
    """Those of pretraining, in the order of their steps."""
    with platform.factory.begin() as s:
        return sorted((c for c in views.checkpoints(s, run) if c.stage == BASE), key=lambda c: (c.step, c.created_at))


def furthest(platform: Platform, run: str) -> int:
    return max((c.step for c in checkpoints(platform, run)), default=0)


def curve(platform: Platform, run: str) -> dict[int, float]:
    """Loss by step, no step twice. A stage reports five times per second, so steps are left out."""
    with platform.factory.begin() as s:
        (loss,) = metrics.metrics(s, run, stage=BASE, keys=["loss"], max_points=10_000).series
    steps = [point.step for point in loss.points]
    assert steps == sorted(set(steps))
    return {point.step: point.last for point in loss.points if point.last is not None}

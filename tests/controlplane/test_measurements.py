"""Plans from what finished stages took here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from controlplane import claims, measurements, runs, workers
from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Attempt, Measurement, Run
from nanochat.config.recipe import Recipe, resolve
from nanochat.planning import measured
from nanochat.planning.gpus import GPUS
from nanochat.planning.graph import STAGES
from nanochat.planning.plan import ESTIMATE, plan
from tests.controlplane.ledger import Ledger, metric

H100 = "NVIDIA H100 80GB HBM3"
TRAINING = "base_train"
BASE = next(stage for stage in STAGES if stage.name == TRAINING)


@pytest.fixture
def here(ledger: Ledger) -> Ledger:
    with ledger.factory.begin() as s:
        for name, host in (("gpus", "here"), ("beside", "here"), ("elsewhere", "there")):
            workers.register(s, name, queue="gpu", hostname=host, gpus=1, gpu_name=H100)
    ledger.worker("cpus", "cpu", slots=4)
    return ledger


def tiny(**overrides: Any) -> Recipe:
    return resolve("tiny", {key.replace("__", "."): value for key, value in overrides.items()})


def begin(ledger: Ledger, recipe: Recipe, worker: str = "gpus") -> tuple[str, claims.Claim]:
    """A run up to the start of its pretraining."""
    with ledger.factory.begin() as s:
        run = runs.submit(s, recipe).run.id
    for stage in ("data", "tok_train", "tok_eval"):
        ledger.complete(run, stage, "cpus")
    ledger.dispatch()
    return run, ledger.begin(run, TRAINING, worker)


def train(ledger: Ledger, tok_per_s: float, *, worker: str = "gpus", **overrides: Any) -> str:
    run, claim = begin(ledger, tiny(**overrides), worker)
    end(ledger, claim, tok_per_s)
    return run


def end(ledger: Ledger, claim: claims.Claim, tok_per_s: float) -> None:
    ledger.report(claim.fence, *[metric(step, tok_per_s=tok_per_s) for step in range(measurements.POINTS)])
    ledger.publish(claim.fence, *claim.outputs)
    assert ledger.finish(claim.fence) is StageStatus.SUCCEEDED


def found(ledger: Ledger, recipe: Recipe, gpus: int = 1, gpu: str | None = "H100") -> dict[str, measured.Measured]:
    with ledger.factory() as s:
        return {figure.stage: figure for figure in measurements.of(s, recipe, gpus, gpu)}


def test_a_plan_uses_the_speed_of_enough_finished_runs(here: Ledger) -> None:
    for tok_per_s in (1000.0, 1300.0):
        train(here, tok_per_s)
    assert TRAINING not in found(here, tiny())
    train(here, 1100.0, base__optim__matrix_lr=0.01, base__num_iterations=7)  # neither changes the speed
    figures = found(here, tiny())
    today = datetime.now(UTC).date()
    assert figures[TRAINING].source == f"measured here, 3 runs, since {today}"
    planned = plan(tiny(), 1, "H100", usd_per_hour=3, measured=list(figures.values()))
    base, mid = planned.stages[0], planned.stages[1]
    assert base.tokens is not None
    assert (base.tok_per_s, base.hours) == (pytest.approx(1100), pytest.approx(base.tokens / 1100 / 3600))
    assert base.usd == pytest.approx(3 * base.tokens / 1100 / 3600)
    assert (base.source, mid.source) == (figures[TRAINING].source, ESTIMATE)
    assert mid == plan(tiny(), 1, "H100", usd_per_hour=3).stages[1]


@pytest.mark.parametrize(
    ("recipe", "gpus", "gpu"),
    [
        (tiny(), 2, "H100"),
        (tiny(), 1, "A100"),
        (tiny(), 1, None),
        (tiny(base__precision="fp8"), 1, "H100"),
        (tiny(base__device_batch_size=1), 1, "H100"),
        (tiny(model__value_embeds=True), 1, "H100"),
        (tiny(model__depth=20), 1, "H100"),  # 34 times the work
    ],
)
def test_other_hardware_and_switches_are_not_measured(here: Ledger, recipe: Recipe, gpus: int, gpu: str | None) -> None:
    for _ in range(3):
        train(here, 1000.0)
    assert TRAINING in found(here, tiny())
    assert TRAINING not in found(here, recipe, gpus, gpu)


def test_another_depth_is_scaled_by_flops(here: Ledger) -> None:
    for _ in range(3):
        train(here, 1000.0)
    deeper = tiny(model__depth=6)
    figure = found(here, deeper)[TRAINING]
    assert figure.source.endswith(f", at depth {tiny().model.depth}, scaled by FLOPs")
    base = plan(deeper, 1, "H100", measured=[figure]).stages[0]
    assert base.tok_per_s == pytest.approx(1000 * measured.work(tiny()) / measured.work(deeper))
    for _ in range(3):
        train(here, 500.0, model__depth=6)
    assert found(here, deeper)[TRAINING].depth is None
    assert plan(deeper, 1, "H100", measured=[found(here, deeper)[TRAINING]]).stages[0].tok_per_s == pytest.approx(500)


def test_only_undisturbed_runs_count(here: Ledger) -> None:
    on_a_gpu = select(func.count()).select_from(Measurement).where(Measurement.gpus == 1)
    _, claim = begin(here, tiny())
    train(here, 1.0, worker="beside")  # on the same machine
    end(here, claim, 1.0)
    _, failed = begin(here, tiny())
    here.report(failed.fence, *[metric(step, tok_per_s=1.0) for step in range(20)])
    here.finish(failed.fence, Reason.NONFINITE)
    paused, claim = begin(here, tiny())
    with here.factory.begin() as s:
        runs.pause(s, paused)
    here.report(claim.fence, *[metric(step, tok_per_s=1.0) for step in range(20)])
    here.finish(claim.fence, Reason.USER_PAUSE)
    with here.factory.begin() as s:
        runs.resume(s, paused)
    end(here, here.begin(paused, TRAINING, "gpus", resumed_from_step=5), 1.0)
    stopped, claim = begin(here, tiny())
    with here.factory.begin() as s:
        runs.cancel(s, stopped)
    end(here, claim, 1.0)  # it was done before it saw the request
    _, claim = begin(here, tiny())
    here.report(claim.fence, metric(1, tok_per_s=1.0))
    here.finish(claim.fence)
    train(here, 1e15)  # more than a GPU can do
    _, claim = begin(here, tiny())
    with here.factory.begin() as s:
        s.execute(update(Attempt).where(Attempt.id == claim.fence.attempt_id).values(process={"machines": 2}))
    end(here, claim, 1.0)
    with here.factory() as s:
        assert s.scalar(on_a_gpu) == 0
    _, claim = begin(here, tiny(), "elsewhere")
    train(here, 1000.0)  # on another machine
    end(here, claim, 1000.0)
    with here.factory() as s:
        assert s.scalar(on_a_gpu) == 2


def test_the_newest_runs_count_and_a_deleted_run_still_does(here: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "NEWEST", 3)
    for tok_per_s in (10.0, 20.0, 1000.0, 1001.0):
        train(here, tok_per_s)
    last = train(here, 1002.0)
    with here.factory.begin() as s:
        s.execute(delete(Run).where(Run.id == last))
    figure = found(here, tiny())[TRAINING]
    assert figure.runs == 3
    assert plan(tiny(), 1, "H100", measured=[figure]).stages[0].tok_per_s == pytest.approx(1001)


def test_evaluations_and_the_tokenizer_are_measured_by_their_hours(here: Ledger) -> None:
    for _ in range(3):
        run = train(here, 1000.0)
        here.complete(run, "base_eval", "gpus")
    with here.factory.begin() as s:
        s.execute(update(Measurement).values(seconds=7200.0))
    figures = found(here, tiny())
    assert {"tok_train", "tok_eval", "base_eval"} < set(figures)
    assert not {"data", "report", "chat_eval_sft"} & set(figures)
    planned = plan(tiny(), 1, "H100", usd_per_hour=3, measured=list(figures.values()))
    others = {stage.stage: stage for stage in planned.others}
    assert [stage.stage for stage in planned.others] == ["tok_train", "tok_eval", "base_eval"]
    assert (others["tok_train"].hours, others["tok_train"].usd) == (pytest.approx(2), 0)
    assert (others["base_eval"].hours, others["base_eval"].usd) == (pytest.approx(2), pytest.approx(6))
    assert plan(tiny(), 1, "CPU", measured=list(figures.values())).usd is None  # not the 0 of the stages without a GPU
    assert planned.hours == pytest.approx(6 + sum(stage.hours or 0 for stage in planned.stages))
    deeper = found(here, tiny(model__depth=6))
    assert deeper["base_eval"].hours == pytest.approx(2 * measured.work(tiny(model__depth=6)) / measured.work(tiny()))
    assert deeper["tok_train"].hours == pytest.approx(2)
    assert "base_eval" not in found(here, tiny(base_eval__device_batch_size=3))


def test_the_neutral_fields_exist_and_other_switches_count() -> None:
    assert set(_keys(Recipe().model_dump())) >= measured.NEUTRAL
    assert {gpu.name for gpu in GPUS} == {measurements.machine(f"NVIDIA {gpu.name}") for gpu in GPUS}
    assert measured.likeness(tiny(), BASE) != measured.likeness(tiny(base__optim__orthogonalizer="polar_express"), BASE)


def _keys(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [*value, *(key for item in value.values() for key in _keys(item))]

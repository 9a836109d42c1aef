"""Midtraining, finetuning and reinforcement learning are killed and resumed: the curve is that of the uninterrupted stage."""

import pytest

from .stage_run import StageRun

pytestmark = pytest.mark.usefixtures("one_core")
USES = [{"task": "identity", "size": 40}, {"task": "sums", "size": 60}]
VAL = [{"task": "sums", "split": "test", "size": 16}]
EVERY = {"eval_every": 4, "save_every": 2, "deterministic": True}
STAGES = {
    "mid_train": (
        "mid",
        {"device_batch_size": 2, "total_batch_size": 128, "eval_tokens": 256, "train": USES, "val": VAL, "num_iterations": 24},
    ),
    "sft": (
        "sft",
        {
            "device_batch_size": 2,
            "examples_per_step": 4,
            "eval_batches": 2,
            "metrics_every": -1,
            "train": USES,
            "val": VAL,
            "num_iterations": 24,
        },
    ),
    "rl": (
        "rl",
        {
            "task": "sums",
            "size": 24,
            "device_batch_size": 4,
            "examples_per_step": 2,
            "num_samples": 4,
            "max_new_tokens": 12,
            "eval_examples": 2,
            "num_iterations": 16,
            "init_lr_frac": 1.0,
            "reward": "correct_or_formatted",
        },
    ),
}
CURVES = {"mid_train": ("loss", "lrm", "grad_norm"), "sft": ("loss", "grad_norm"), "rl": ("loss", "reward", "entropy", "kl")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STAGES)
def test_killed_then_resumed_is_bit_for_bit_the_uninterrupted_stage(inputs, trained, tmp_path, kind):
    section, settings = STAGES[kind]
    given = {**inputs, "model": trained.artifact("model")}

    def stage(name: str) -> StageRun:
        return StageRun(tmp_path / name, kind, given, {section: {**settings, **EVERY}})

    whole = stage("whole")
    assert whole.in_process() == 0, whole.events("error")

    killed = stage("killed").start()
    killed.until(lambda seen: sum(e["kind"] == "checkpoint" for e in seen) >= 2)
    killed.kill()
    saved = killed.events("checkpoint")[-1]
    assert not saved["final"]

    resumed = stage("resumed")
    resumed.resume_from = killed.checkpoint(saved["step"])
    assert resumed.in_process() == 0, resumed.events("error")
    for curve in CURVES[kind]:
        expected = whole.series(curve)
        assert killed.series(curve).items() <= expected.items(), curve
        got = resumed.series(curve)
        assert got == {step: value for step, value in expected.items() if step > saved["step"]}, curve
        assert got, curve
    ended, wanted = resumed.results(), whole.results()
    measured = {"train_seconds", "tok_per_s", "mfu", "mem_gib"}
    assert {k: v for k, v in ended.items() if k not in measured} == {k: v for k, v in wanted.items() if k not in measured}

"""A small run of the recipe `modern`: it learns, it resumes bit for bit, and midtraining accepts its model."""

import pytest
import torch
from safetensors.torch import load_file

from nanochat.config.recipe import resolve
from nanochat.model import fp8
from nanochat.train.checkpoint import load_model

from . import stage_run
from .stage_run import StageRun

STEPS = 16
SMALL = {
    "model": {**stage_run.MODEL, "depth": 4, "aspect_ratio": 16, "window_pattern": "SSSL"},
    "base": {**stage_run.BASE, "num_iterations": STEPS, "save_every": 8, "deterministic": True, "scale_lr": False},
}


def modern(out, inputs, resume_from=None) -> StageRun:
    recipe = resolve("modern").model_dump(mode="json")
    config = {name: {**recipe[name], **changes} for name, changes in SMALL.items()}
    return StageRun(out, "base_train", inputs, config, resume_from)


def test_modern_learns_and_resumes_bit_for_bit(inputs, tmp_path):
    whole = modern(tmp_path / "whole", inputs)
    assert whole.in_process() == 0, whole.events("error")
    losses = whole.series("loss")
    assert losses[STEPS] < losses[1] - 0.2
    assert whole.results()["val_bpb"] < whole.results()["untrained_val_bpb"]
    assert whole.events("sample")  # made by the engine, with a KV cache

    resumed = modern(tmp_path / "resumed", inputs, whole.checkpoint(8))
    assert resumed.in_process() == 0, resumed.events("error")
    assert resumed.series("loss") == {step: loss for step, loss in losses.items() if step > 8}
    one, other = (load_file(run.artifact("model").dir / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)

    model, _ = load_model(whole.artifact("model").dir, "cpu")
    assert model.config.value_embeds
    assert model.config.window_of(0) == 128
    assert "value_embeds.3.weight" in one

    mid = StageRun(
        tmp_path / "mid",
        "mid_train",
        {**{k: inputs[k] for k in ("tokenizer", "tasks")}, "model": whole.artifact("model")},
        {
            "mid": {
                **resolve("modern").mid.model_dump(mode="json"),
                "device_batch_size": 2,
                "total_batch_size": 128,
                "num_iterations": 2,
                "eval_tokens": 128,
                "train": [{"task": "identity", "size": 50}],
                "val": [{"task": "identity", "split": "test", "size": 10}],
            }
        },
    )
    assert mid.in_process() == 0, mid.events("error")


def test_fp8_resumes_bit_for_bit(base, monkeypatch):
    """On the CPU the reference implementation multiplies. The model is wide enough for fp8."""
    monkeypatch.setattr(fp8, "supported", lambda device: True)
    whole = base("whole", precision="fp8", deterministic=True, num_iterations=8, save_every=4)
    assert whole.in_process() == 0, whole.events("error")
    resumed = base("resumed", precision="fp8", deterministic=True, num_iterations=8, resume_from=whole.checkpoint(4))
    assert resumed.in_process() == 0, resumed.events("error")
    assert resumed.series("loss") == {step: loss for step, loss in whole.series("loss").items() if step > 4}
    plain = base("plain", deterministic=True, num_iterations=8)
    assert plain.in_process() == 0
    assert plain.series("loss") != whole.series("loss")
    assert plain.series("loss")[8] == pytest.approx(whole.series("loss")[8], rel=0.02)


def test_without_fp8_support_it_warns_and_trains_without(base):
    run = base(precision="fp8", num_iterations=2)
    assert run.in_process() == 0
    (warning,) = run.events("warning")
    assert warning["code"] == "no_fp8"

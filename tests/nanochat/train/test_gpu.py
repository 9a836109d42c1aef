"""Stages that train on a GPU, compiled and with every kernel."""

import pytest
import torch
from safetensors.torch import load_file

from .stage_run import StageRun

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MODEL = {"depth": 4, "seq_len": 256, "aspect_ratio": 64, "head_dim": 128}
BASE = {
    "device_batch_size": 8,
    "total_batch_size": 8192,  # four micro-steps of one rank
    "num_iterations": 80,
    "eval_every": 20,
    "eval_tokens": 8192,
    "core_every": -1,
    "sample_every": -1,
    "save_every": 5,
    "deterministic": True,
}
# Runs the real stage, but reports every step.
EVERY_STEP = (
    "import runpy; from nanochat.train import meter; meter.QUIET_S = 0.0; runpy.run_module('nanochat', run_name='__main__')"
)


@pytest.fixture
def base(inputs, tmp_path):
    def make(name, resume_from=None, **changes):
        config = {"model": MODEL, "base": {**BASE, **changes}}
        return StageRun(tmp_path / name, "base_train", inputs, config, resume_from, device="cuda")

    return make


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_killed_then_resumed_is_bit_for_bit_the_uninterrupted_run(base, precision):
    whole, killed = (base(name, precision=precision).start(program=("-c", EVERY_STEP)) for name in ("whole", "killed"))
    killed.until(lambda seen: any(e["kind"] == "checkpoint" and e["step"] >= 5 for e in seen))
    killed.kill()
    last = killed.events("checkpoint")[-1]["step"]
    assert whole.wait() == 0, whole.log()
    assert last < 80
    resumed = base("resumed", killed.checkpoint(last), precision=precision).start(program=("-c", EVERY_STEP))
    assert resumed.wait() == 0, resumed.log()
    assert {warning["code"] for warning in whole.events("warning")} <= {"save_waited"}
    for series in ("loss", "grad_norm", "val_bpb"):
        expected, found = whole.series(series), resumed.series(series)
        assert found
        assert len(expected) == 80 if series == "loss" else expected
        assert killed.series(series).items() <= expected.items()
        assert found.items() <= expected.items()
    one, other = (load_file(run.artifact("model").dir / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices: NCCL")
def test_two_ranks_learn_as_well_as_one_and_one_resumes_from_their_checkpoint(base):
    one, two = base("one").start(), base("two", deterministic=False).start(ranks=2)
    assert (one.wait(), two.wait()) == (0, 0), one.log() + two.log()
    alone, together = one.results(), two.results()
    assert (alone["tokens"], alone["world_size"]) == (together["tokens"], 1)
    assert together["world_size"] == 2
    # Two ranks read different rows from one. The optimizer's own test uses the same rows for both, and there losses are equal.
    assert together["val_bpb"] == pytest.approx(alone["val_bpb"], rel=0.1)
    assert together["val_bpb"] < together["untrained_val_bpb"]
    resumed = base("resumed", two.checkpoint(75), deterministic=False).start()
    assert resumed.wait() == 0, resumed.log()
    # One rank validates on different rows from two (8,192 tokens: 2.18 against 2.00 bits per byte for the same weights).
    assert resumed.results()["val_bpb"] == pytest.approx(alone["val_bpb"], rel=0.05)
    assert resumed.results()["loss"] == pytest.approx(together["loss"], rel=0.1)

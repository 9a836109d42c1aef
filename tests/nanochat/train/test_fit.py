"""Running out of memory: the batch is halved once and training is the same, or the stage ends and says what to change."""

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nanochat.config.recipe import ModelSpec
from nanochat.contract.contract import SPEC, Exit, ExitReport
from nanochat.contract.launch import torchrun
from nanochat.model import GPT, GPTConfig
from nanochat.planning import memory
from nanochat.train import fit

from . import stage_run
from .stage_run import StageRun
from .test_mid_and_sft import MID, SFT

MESSAGE = "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 8.00 GiB."


@pytest.fixture
def short_of_memory(monkeypatch):
    """After `short_of_memory(rows=2, after=3)`, training passes over more than two rows fail, from the fourth pass on."""

    def shorten(rows, after=0):
        forward, passes = GPT.forward, 0

        def fail(self, ids, targets=None, **options):
            nonlocal passes
            if torch.is_grad_enabled() and targets is not None:
                passes += 1
                if ids.size(0) > rows and passes > after:
                    raise torch.OutOfMemoryError(MESSAGE)
            return forward(self, ids, targets, **options)

        monkeypatch.setattr(GPT, "forward", fail)

    return shorten


def same_training(run, other):
    for series in ("loss", "grad_norm", "val_bpb", "val_loss", "lrm"):
        assert run.series(series) == other.series(series)
    assert run.results()["tokens"] == other.results()["tokens"]
    assert run.results()["accumulation"] == other.results()["accumulation"]
    one, two = (load_file(r.artifact("model").dir / "model.safetensors") for r in (run, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("after", [0, 3], ids=["in the first step", "in the fourth micro-batch"])
def test_pretraining_steps_down_to_the_run_with_half_the_batch(base, short_of_memory, after):
    small = base("small", deterministic=True, num_iterations=6, device_batch_size=2)
    assert small.in_process() == 0
    short_of_memory(rows=2, after=after)
    run = base("run", deterministic=True, num_iterations=6, device_batch_size=4)
    assert run.in_process() == 0, run.events("error")
    same_training(run, small)
    # On a busy machine the last save may wait for the one before it, of which another warning tells.
    (warning,) = [w for w in run.events("warning") if w["code"] == "out_of_memory"]
    assert "base.device_batch_size 4 at step" in warning["message"]
    assert "Tried to allocate 9.00 GiB; starting again with 2 rows at a time, 2 times a step" in warning["message"]


@pytest.mark.parametrize(("kind", "section", "config"), [("mid_train", "mid", MID), ("sft", "sft", SFT)])
def test_midtraining_and_finetuning_step_down_too(inputs, trained, tmp_path, short_of_memory, kind, section, config):
    def run(name, rows):
        given = {**inputs, "model": trained.artifact("model")}
        changed = {**config, "deterministic": True, "num_iterations": 4, "device_batch_size": rows}
        if section == "sft":  # the recipe's device batch decides how many rows it validates on
            changed["eval_batches"] = 16 // rows
        return StageRun(tmp_path / name, kind, given, {section: changed})

    small = run("small", 2)
    assert small.in_process() == 0
    short_of_memory(rows=2)
    large = run("large", 4)
    assert large.in_process() == 0, large.events("error")
    same_training(large, small)
    assert [w["code"] for w in large.events("warning") if w["code"] != "rows_longer"] == ["out_of_memory"]


def test_if_half_the_batch_does_not_fit_either_the_stage_ends_with_a_hint(base, short_of_memory):
    short_of_memory(rows=1)
    run = base(device_batch_size=4)
    assert run.in_process() == Exit.FAILED
    error = run.error()
    assert error["code"] == "out_of_memory"
    assert "base.device_batch_size 2 at step 0: CUDA out of memory. Tried to allocate 9.00 GiB" in error["message"]
    assert "set base.device_batch_size to 1 or less" in error["hint"]
    assert len(run.events("warning")) == 1


def test_one_row_cannot_be_halved(base, short_of_memory):
    short_of_memory(rows=0)
    run = base(device_batch_size=1)
    assert run.in_process() == Exit.FAILED
    assert not run.events("warning")
    assert "make the model smaller, or use GPUs with more memory" in run.error()["hint"]


def test_running_out_of_memory_after_a_checkpoint_ends_the_attempt(base, short_of_memory):
    short_of_memory(rows=2, after=7)
    run = base(device_batch_size=4, save_every=5)
    assert run.in_process() == Exit.FAILED
    assert not run.events("warning")
    assert "at step 7" in run.error()["message"]
    assert "the last checkpoint is of step 5" in run.error()["message"]


def test_a_resumed_attempt_keeps_the_smaller_batch_or_steps_down_itself(base, short_of_memory, monkeypatch):
    small = base("small", deterministic=True, device_batch_size=2, num_iterations=8)
    assert small.in_process() == 0
    with monkeypatch.context():
        short_of_memory(rows=2)
        run = base("run", deterministic=True, device_batch_size=4, num_iterations=8)
        assert run.in_process() == 0
        again = base("again", deterministic=True, device_batch_size=4, num_iterations=8, resume_from=run.checkpoint(5))
        assert again.in_process() == 0
    assert again.events("warning") == []  # it never tried the larger batch
    assert again.series("loss") == {step: loss for step, loss in small.series("loss").items() if step > 5}


def test_the_batch_is_chosen_by_the_gpus_memory(base, monkeypatch):
    config = GPTConfig.of(ModelSpec(**stage_run.MODEL), stage_run.VOCAB)
    monkeypatch.setattr(fit, "_memory_gib", lambda _: memory.peak_gib(config, 3) / memory.USABLE)
    run = base(device_batch_size=4, num_iterations=1, eval_every=-1)
    assert run.in_process() == 0, run.events("error")
    assert run.results()["accumulation"] == 2
    (told,) = (e["message"] for e in run.events("log") if "device_batch_size" in e["message"])
    assert told.startswith("2 rows at a time, 2 times a step, to fit 0.0 GiB; the recipe's base.device_batch_size is 4")


ONE_RANK_FAILS = """
import os, sys, torch
from nanochat import __main__ as stage
from nanochat.model import GPT
from nanochat.train import meter
meter.QUIET_S = 0.0  # report every step
forward, passes, fails_from = GPT.forward, 0, int(sys.argv.pop(1))
def fail(self, ids, targets=None, **options):
    global passes
    if torch.is_grad_enabled() and targets is not None and ids.size(0) > 1 and os.environ["RANK"] == "1":
        passes += 1
        if passes > fails_from:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
    return forward(self, ids, targets, **options)
GPT.forward = fail
sys.exit(stage.main())
"""


def run_two_ranks(run: StageRun, script: Path, fails_from: int) -> int:
    script.write_text(ONE_RANK_FAILS, encoding="utf-8")
    run.out.mkdir(parents=True)
    (run.out / SPEC).write_text(run.spec.model_dump_json(), encoding="utf-8")
    command = torchrun(2, str(script), str(fails_from), run.kind, "--spec", str(run.out / SPEC))
    return subprocess.run(command, capture_output=True, timeout=300, check=False).returncode


def test_when_one_of_two_ranks_is_short_of_memory_both_step_down(base, tmp_path):
    small = base("small", deterministic=True, num_iterations=3, device_batch_size=1)
    assert run_two_ranks(small, tmp_path / "stage.py", fails_from=0) == 0, small.events("error")  # always one row at a time
    run = base("run", deterministic=True, num_iterations=3, device_batch_size=2)
    assert run_two_ranks(run, tmp_path / "stage.py", fails_from=0) == 0, run.events("error")
    same_training(run, small)
    assert [w["code"] for w in run.events("warning")] == ["out_of_memory"]


def test_a_rank_that_runs_out_of_memory_during_training_ends_the_attempt(base, tmp_path):
    run = base("run", num_iterations=9, device_batch_size=2)
    assert run_two_ranks(run, tmp_path / "stage.py", fails_from=3) != 0
    report = ExitReport.load(run.out)
    assert (report.code, report.rank) == ("out_of_memory", 1)
    assert "base.device_batch_size 2 at step 2" in report.message

"""A stage that was stopped or killed at any moment resumes as if nothing had happened."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from nanochat.contract.contract import STOP, Artifact, Exit, ExitReport, seal

from . import stage_run


def steps_from(run, first, series="loss"):
    return {step: value for step, value in run.series(series).items() if step >= first}


def test_killed_then_resumed_is_bit_for_bit_the_uninterrupted_run(base, trained):
    killed = base("killed", deterministic=True).start()
    killed.until(lambda seen: any(e["kind"] == "checkpoint" and e["step"] >= 5 for e in seen))
    killed.kill()
    last = killed.events("checkpoint")[-1]
    assert 5 <= last["step"] < 24

    resumed = base("resumed", deterministic=True, resume_from=killed.checkpoint(last["step"]))
    assert resumed.in_process() == 0, resumed.events("error")
    losses = resumed.series("loss")
    assert list(losses) == list(range(last["step"] + 1, 25))
    for series in ("loss", "grad_norm", "val_bpb"):
        assert steps_from(killed, 0, series).items() <= trained.series(series).items()
        assert resumed.series(series) == steps_from(trained, min(resumed.series(series)), series)
    one, other = (load_file(run.artifact("model").dir / "model.safetensors") for run in (trained, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.results()["untrained_val_bpb"] == trained.results()["untrained_val_bpb"]
    assert resumed.results()["tokens"] == trained.results()["tokens"]


def test_a_finished_stage_is_extended_as_if_it_had_been_longer_from_the_start(base):
    """Without a warm-down, whose place depends on the length, the bits are those of the longer stage."""
    same = {"deterministic": True, "warmdown_ratio": 0.0}
    short, whole = base("short", **same), base("whole", num_iterations=30, **same)
    assert (short.in_process(), whole.in_process()) == (0, 0)
    longer = base("longer", num_iterations=30, resume_from=short.checkpoint(24), **same)
    assert longer.in_process() == 0, longer.events("error")
    assert list(longer.series("loss")) == list(range(25, 31))
    assert longer.series("loss") == steps_from(whole, 25)
    assert longer.results()["steps"] == 30


def test_stop_file_saves_and_ends_with_75(base, trained):
    stopped = base("stopped", deterministic=True, save_every=-1)
    watcher = stopped.stop_after(3)
    assert stopped.in_process() == Exit.STOPPED
    watcher.join()
    (saved,) = stopped.events("checkpoint")
    assert not saved["final"]
    assert not stopped.events("artifact")
    assert stopped.error()["code"] == "stopped"

    resumed = base("resumed", deterministic=True, resume_from=stopped.checkpoint(saved["step"]))
    assert resumed.in_process() == 0
    assert resumed.series("loss") == steps_from(trained, saved["step"] + 1)
    assert resumed.series("val_bpb")[24] == trained.series("val_bpb")[24]


def test_stopped_before_the_first_step_leaves_no_checkpoint(base):
    run = base()
    run.out.mkdir(parents=True)
    (run.out / STOP).touch()
    assert run.in_process() == Exit.STOPPED
    assert not run.events("checkpoint")


def test_sigterm_to_one_of_two_ranks_stops_both_and_one_rank_resumes(base):
    # The schedule must be so long that the signal arrives in the middle of it.
    two = base("two", num_iterations=60, save_every=-1, sample_every=-1).start(ranks=2)
    two.until(lambda seen: any(e["kind"] == "progress" and e["done"] >= 20 for e in seen))
    two.rank(1).send_signal(signal.SIGTERM)
    assert two.wait() != 0
    report = ExitReport.load(two.out)
    assert report.exit_code == Exit.STOPPED, two.log()
    saved = two.events("checkpoint")[-1]["step"]
    assert saved >= 20

    one = base("one", num_iterations=60, save_every=-1, sample_every=-1, resume_from=two.checkpoint(saved))
    assert one.in_process() == 0, one.events("error")
    assert list(one.series("loss")) == list(range(saved + 1, 61))
    assert one.results()["world_size"] == 1
    assert one.results()["tokens"] == 60 * 256
    before, after = two.series("loss"), one.series("loss")
    assert after[saved + 1] == pytest.approx(before[saved], rel=0.05)
    assert after[60] < before[saved]
    assert before[1] > before[saved] + 0.5  # two ranks learn as well


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of a checkpoint of `trained`, which a test may damage. `copy.sealed()` is the artifact of its present content."""

    class Copy:
        dir = tmp_path / "copy"

        def sealed(self) -> Artifact:
            return seal(self.dir, name="model", stage="base_train")

    shutil.copytree(trained.checkpoint(20).dir, Copy.dir)
    return Copy()


def test_a_flipped_byte_is_detected(base, copy):
    artifact = copy.sealed()
    weights = copy.dir / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    run = base(resume_from=artifact)
    assert run.in_process() == Exit.FAILED  # a retry takes the checkpoint before it
    assert (run.error()["code"], "model.safetensors" in run.error()["message"]) == ("checkpoint_gone", True)


def test_a_checkpoint_that_vanished_since_it_was_chosen_is_no_bad_input(base, copy):
    artifact = copy.sealed()
    shutil.rmtree(copy.dir)
    run = base(resume_from=artifact)
    assert run.in_process() == Exit.FAILED
    assert run.error()["code"] == "checkpoint_gone"


@pytest.mark.parametrize("name", ["model.safetensors", "optim_rank0.safetensors", "train_state.json", "meta.json"])
def test_half_a_file_is_refused_even_if_its_manifest_agrees(base, copy, name):
    path = copy.dir / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run = base(resume_from=copy.sealed())
    assert run.in_process() == Exit.BAD_INPUT
    assert (run.error()["code"], name in run.error()["message"]) == ("checkpoint_corrupt", True)


def test_another_architecture_is_refused(base, copy):
    run = base(resume_from=copy.sealed())
    run.config = {**run.config, "model": {**stage_run.MODEL, "depth": 4}}
    assert run.in_process() == Exit.BAD_INPUT
    assert run.error()["code"] == "config_mismatch"


def test_weights_that_do_not_fit_their_description_are_refused(base, copy):
    meta = json.loads((copy.dir / "meta.json").read_text())
    meta["model_config"]["n_embd"] = 128
    (copy.dir / "meta.json").write_text(json.dumps(meta))
    run = base(resume_from=copy.sealed())
    assert run.in_process() == Exit.BAD_INPUT
    assert run.error()["code"] == "config_mismatch"


def test_another_tokenizer_is_refused(base, copy, inputs, tmp_path):
    shutil.copytree(inputs["tokenizer"].dir, tmp_path / "tokenizer")
    run = base(resume_from=copy.sealed())
    run.inputs = {**inputs, "tokenizer": seal(tmp_path / "tokenizer", name="another")}
    assert run.in_process() == Exit.BAD_INPUT
    assert run.error()["code"] == "tokenizer_mismatch"

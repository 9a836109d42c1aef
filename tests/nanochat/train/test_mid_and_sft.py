"""Midtraining and finetuning on tasks that need no download."""

import json
import shutil
from itertools import pairwise

import pytest

from nanochat.contract.contract import Exit, seal
from nanochat.train.checkpoint import load_model

from .stage_run import StageRun

USES = [{"task": "identity", "size": 40}, {"task": "sums", "size": 40}]
VAL = [{"task": "sums", "split": "test", "size": 16}]
MID = {"device_batch_size": 2, "total_batch_size": 256, "eval_every": 10, "eval_tokens": 512, "train": USES, "val": VAL}
SFT = {
    "device_batch_size": 2,
    "examples_per_step": 4,
    "init_lr_frac": 0.1,
    "eval_every": 10,
    "eval_batches": 4,
    "metrics_every": -1,
    "train": USES,
    "val": VAL,
}


@pytest.fixture
def stage(inputs, trained, tmp_path):
    def make(kind, section, config, name="stage", *, model=None, **changes):
        given = {**inputs, "model": model or trained.artifact("model")}
        return StageRun(tmp_path / name, kind, given, {section: {**config, **changes}})

    return make


def test_midtraining_ends_after_one_pass(stage):
    run = stage("mid_train", "mid", MID)
    assert run.in_process() == 0, run.events("error")
    results, lrm, bpb = run.results(), run.series("lrm"), run.series("val_bpb")
    assert results["rows"] == 80
    assert 4 < results["steps"] == len(lrm) < 200
    assert next(iter(bpb)) == 0
    assert bpb[results["steps"]] < bpb[0]
    assert lrm[1] == 1.0
    assert 0 <= lrm[results["steps"]] < 0.5
    assert all(later <= sooner for sooner, later in pairwise(lrm.values()))
    progress = run.events("progress")
    assert progress[-1]["done"] == progress[-1]["total"] == results["steps"]
    assert progress[1]["total"] == pytest.approx(results["steps"], rel=0.5)


def test_midtraining_counts_optimizer_steps_not_micro_batches(stage):
    run = stage("mid_train", "mid", MID, num_iterations=3)
    assert run.in_process() == 0
    results = run.results()
    assert (results["accumulation"], results["steps"], results["tokens"]) == (2, 3, 3 * 256)
    # The decay covers the last fifth of 3 steps, which begins after the last step has started: all steps use the full rate.
    assert list(run.series("lrm").values()) == [1.0, 1.0, 1.0]


def test_finetuning_learns_the_answers(stage):
    run = stage("sft", "sft", SFT, save_every=10)
    assert run.in_process() == 0, run.events("error")
    results, val = run.results(), run.series("val_loss")
    assert results["steps"] == 80 // 4
    assert list(val) == [0, 10, 20]
    assert val[20] < val[0]
    assert results["val_loss"] == val[20]
    lrm = run.series("lrm")
    assert [lrm[1], lrm[11], lrm[20]] == pytest.approx([1.0, 0.5, 0.05])
    saved = [(e["step"], e["final"], e["val_bpb"]) for e in run.events("checkpoint")]
    assert saved == [(10, False, None), (20, False, None), (20, True, None)]
    _, meta = load_model(run.artifact("model").dir, "cpu")
    assert (meta["stage"], meta["step"], meta["val_loss"]) == ("sft", 20, val[20])


def test_finetuning_resumes_where_it_stopped(stage):
    whole = stage("sft", "sft", SFT, "whole", deterministic=True, save_every=7)
    assert whole.in_process() == 0
    again = stage("sft", "sft", SFT, "again", deterministic=True, save_every=7)
    again.resume_from = whole.checkpoint(14)
    assert again.in_process() == 0
    assert again.series("loss") == {s: v for s, v in whole.series("loss").items() if s > 14}


def test_midtraining_resumes_in_the_middle_of_its_pass(stage):
    whole = stage("mid_train", "mid", MID, "whole", deterministic=True, save_every=4)
    assert whole.in_process() == 0
    again = stage("mid_train", "mid", MID, "again", deterministic=True, save_every=4)
    steps = [e["step"] for e in whole.events("checkpoint")]
    again.resume_from = whole.checkpoint(steps[-2])
    assert again.in_process() == 0
    for series in ("loss", "lrm"):
        assert again.series(series) == {s: v for s, v in whole.series(series).items() if s > steps[-2]}


def test_conversations_that_do_not_divide_are_refused(stage):
    run = stage("sft", "sft", SFT, examples_per_step=5)
    assert run.in_process() == Exit.BAD_INPUT
    assert "sft.examples_per_step" in run.error()["message"]
    assert "nearest that fit: 4 or 6" in run.error()["message"]


def test_a_model_of_another_tokenizer_is_refused(stage, inputs, tmp_path):
    shutil.copytree(inputs["tokenizer"].dir, tmp_path / "tokenizer")
    run = stage("mid_train", "mid", MID)
    run.inputs = {**run.inputs, "tokenizer": seal(tmp_path / "tokenizer", name="another")}
    assert run.in_process() == Exit.BAD_INPUT
    assert run.error()["code"] == "tokenizer_mismatch"


def test_a_corrupt_model_is_refused(stage, trained, tmp_path):
    model = trained.artifact("model")
    shutil.copytree(model.dir, tmp_path / "model")
    spoilt = tmp_path / "model" / "model.safetensors"
    spoilt.write_bytes(spoilt.read_bytes()[:-1000])
    run = stage("sft", "sft", SFT, model=model.model_copy(update={"path": str(tmp_path / "model")}))
    assert run.in_process() == Exit.BAD_INPUT
    assert "model.safetensors" in run.error()["message"]


def own_chats(path, *words):
    path.write_text("".join(json.dumps({"instruction": "Count.", "output": "one two " * n}) + "\n" for n in words))
    return [{"jsonl": str(path)}]


@pytest.mark.parametrize(("kind", "section", "config"), [("mid_train", "mid", MID), ("sft", "sft", SFT)])
def test_conversations_longer_than_the_context_are_counted_and_nothing_but_them_is_refused(
    stage, tmp_path, kind, section, config
):
    mixed = own_chats(tmp_path / "mixed.jsonl", *[1, 2, 400] * 8)
    run = stage(kind, section, config, train=mixed, num_iterations=1)
    assert run.in_process() == 0, run.events("error")
    assert (run.results()["rows_measured"], run.results()["rows_longer"]) == (24, 8)
    assert "8 of the first 24 conversations are longer than the context" in run.events("warning")[0]["message"]

    run = stage(kind, section, config, "long", train=own_chats(tmp_path / "long.jsonl", *[400] * 3))
    assert run.in_process() == Exit.BAD_INPUT
    assert run.error()["code"] == "nothing_to_learn"
    assert "no conversation fits the context of" in run.error()["message"]


@pytest.mark.parametrize(("kind", "section", "config"), [("mid_train", "mid", MID), ("sft", "sft", SFT)])
def test_packed_rows_learn_and_the_results_say_what_was_left_out(stage, kind, section, config):
    rows = {"examples_per_step": 2, "device_batch_size": 1} if section == "sft" else {}
    run = stage(kind, section, config, packing="best_fit", eval_every=-1, **rows)
    assert run.in_process() == 0, run.events("error")
    results = run.results()
    assert results["rows"] == 80
    assert results["trained_conversations"] + results["skipped_conversations"] == 80
    assert results["cut_tokens"] >= 0
    assert 0 < results["padding_tokens"] < results["tokens"]
    assert 0 < run.series("padding_pct")[results["steps"]] < 60
    name = "val_bpb" if section == "mid" else "val_loss"
    assert results[name] < results[f"untrained_{name}"]


def test_packed_finetuning_resumes_bit_for_bit(stage):
    changes = {"packing": "best_fit", "deterministic": True, "save_every": 3, "eval_every": -1, "keep_checkpoints": 9}
    whole = stage("sft", "sft", SFT, "whole", **changes)
    assert whole.in_process() == 0
    again = stage("sft", "sft", SFT, "again", **changes)
    again.resume_from = whole.checkpoint(3)
    assert again.in_process() == 0
    for series in ("loss", "lrm", "padding_pct"):
        assert again.series(series) == {s: v for s, v in whole.series(series).items() if s > 3}
    assert again.results()["trained_conversations"] == whole.results()["trained_conversations"]

"""A failing evaluation loses no training: the checkpoint is on disk before it, and a retry resumes from there."""

import pytest
import torch
from safetensors.torch import load_file

from nanochat.contract.contract import Exit, seal, verify, write_json


@pytest.fixture
def pretraining(base, bundle, tmp_path):
    """`pretraining(name, ...)` is an attempt that evaluates CORE on the present content of `bundle`."""

    def make(name, **changes):
        folder = tmp_path / f"core of {name}"
        folder.mkdir()
        write_json(folder / "core.json", {"root": str(bundle)})
        run = base(name, deterministic=True, sample_every=-1, **changes)
        run.inputs = {**run.inputs, "core": seal(folder, name="core")}
        return run

    return make


@pytest.fixture
def line(bundle):
    """`line.damage()` damages a line of one task's file, `line.repair()` repairs it."""

    class Line:
        file = bundle / "eval_data" / "c.jsonl"
        good = file.read_text()

        def damage(self):
            self.file.write_text(self.good + "{half a li")

        def repair(self):
            self.file.write_text(self.good)

    return Line()


def same_model(run, other):
    one, two = (load_file(r.artifact("model").dir / "model.safetensors") for r in (run, other))
    return all(torch.equal(one[name], two[name]) for name in one)


def test_a_bad_line_at_the_end_of_pretraining(pretraining, line, trained):
    line.damage()
    failed = pretraining("failed", core_every=1000, save_every=-1)
    assert failed.in_process() == Exit.BAD_INPUT
    assert "c.jsonl" in failed.error()["message"]
    assert not failed.events("artifact")
    (saved,) = failed.events("checkpoint")
    assert (saved["step"], saved["final"], saved["val_bpb"]) == (24, False, None)
    verify(failed.checkpoint(24))
    evaluated = [e for e in failed.events("metric") if "val_bpb" in e["values"]]
    assert saved["seq"] < evaluated[-1]["seq"]  # on disk before the first evaluation of its step

    line.repair()
    retried = pretraining("retried", core_every=1000, save_every=-1, resume_from=failed.checkpoint(24))
    assert retried.in_process() == 0, retried.error()
    assert retried.series("loss") == {}  # nothing was trained again
    assert same_model(retried, trained)
    assert [set(e["values"]) for e in retried.events("eval")] == [{"copa", "winograd", "jeopardy"}]
    for figure in ("val_bpb", "untrained_val_bpb", "loss", "steps", "tokens"):
        assert retried.results()[figure] == trained.results()[figure]
    assert [(e["step"], e["final"], e["val_bpb"]) for e in retried.events("checkpoint")] == [
        (24, True, trained.results()["val_bpb"])
    ]


def test_a_bad_line_in_the_middle_keeps_the_checkpoint_of_the_same_step(pretraining, line, trained):
    line.damage()
    failed = pretraining("failed", core_every=10, save_every=10)
    assert failed.in_process() == Exit.BAD_INPUT
    assert [(e["step"], e["val_bpb"]) for e in failed.events("checkpoint")] == [(10, None)]

    line.repair()
    retried = pretraining("retried", core_every=10, save_every=10, resume_from=failed.checkpoint(10))
    assert retried.in_process() == 0, retried.error()
    assert list(retried.series("loss")) == list(range(11, 25))
    assert [e["step"] for e in retried.events("eval")] == [10, 20, 24]  # the missed evaluation of step 10 is done first
    assert retried.series("val_bpb") == {step: v for step, v in trained.series("val_bpb").items() if step >= 10}
    assert same_model(retried, trained)


def test_an_attempt_that_died_after_its_last_evaluation_has_the_figures_of_all(pretraining, monkeypatch):
    monkeypatch.setattr("nanochat.eval.core.ROWS", {"copa": 9, "winograd": 7, "jeopardy": 5})  # so that CORE is complete
    whole = pretraining("whole", core_every=12)
    assert whole.in_process() == 0
    again = pretraining("again", core_every=12, resume_from=whole.checkpoint(24))
    assert again.in_process() == 0
    assert not again.events("eval")
    for figure in ("core", "val_bpb", "min_val_bpb", "loss"):
        assert again.results()[figure] == whole.results()[figure]

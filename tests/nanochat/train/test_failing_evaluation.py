"""A failing evaluation is a warning and a hole in the figures. Training goes on."""

import pytest
import torch
from safetensors.torch import load_file

from nanochat.contract.contract import seal, write_json


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
    """`line.damage()` damages a line of one task's file."""

    class Line:
        file = bundle / "eval_data" / "c.jsonl"
        good = file.read_text()

        def damage(self):
            self.file.write_text(self.good + "{half a li")

    return Line()


def same_model(run, other):
    one, two = (load_file(r.artifact("model").dir / "model.safetensors") for r in (run, other))
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("every", [1000, 10])
def test_a_bad_line_is_a_warning_and_a_hole_in_the_figures(pretraining, line, trained, every):
    line.damage()
    run = pretraining("damaged", core_every=every, save_every=10)
    assert run.in_process() == 0, run.error()
    warnings = [e for e in run.events("warning") if e["code"] == "evaluation_failed"]
    evaluated = run.events("eval")
    assert len(warnings) == len(evaluated) == (1 if every == 1000 else 3)
    assert all("c.jsonl line 10 is not JSON" in e["message"] for e in warnings)
    assert [set(e["values"]) for e in evaluated] == [{"winograd", "jeopardy"}] * len(evaluated)
    assert same_model(run, trained)
    assert run.results()["val_bpb"] == trained.results()["val_bpb"]


def test_the_last_checkpoint_is_on_disk_before_the_evaluations_of_its_step(pretraining):
    run = pretraining("unsaved", core_every=1000, save_every=-1)
    assert run.in_process() == 0, run.error()
    first, final = run.events("checkpoint")
    assert (first["step"], first["final"], first["val_bpb"]) == (24, False, None)
    assert (final["step"], final["final"], final["val_bpb"]) == (24, True, run.results()["val_bpb"])
    evaluated = [e for e in run.events("metric") if "val_bpb" in e["values"]][-1]
    assert first["seq"] < evaluated["seq"] < final["seq"]


def test_a_bundle_that_is_none_any_more_does_not_end_training(pretraining, bundle, trained):
    (bundle / "core.yaml").write_text("[")
    run = pretraining("broken", core_every=1000)
    assert run.in_process() == 0, run.error()
    assert any("is not a CORE bundle" in e["message"] for e in run.events("warning"))
    assert same_model(run, trained)


def test_an_attempt_that_died_after_its_last_evaluation_has_the_figures_of_all(pretraining, monkeypatch):
    monkeypatch.setattr("nanochat.eval.core.ROWS", {"copa": 9, "winograd": 7, "jeopardy": 5})  # so that CORE is complete
    whole = pretraining("whole", core_every=12)
    assert whole.in_process() == 0
    again = pretraining("again", core_every=12, resume_from=whole.checkpoint(24))
    assert again.in_process() == 0
    assert not again.events("eval")
    for figure in ("core", "val_bpb", "min_val_bpb", "loss"):
        assert again.results()[figure] == whole.results()[figure]

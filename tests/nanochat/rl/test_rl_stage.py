"""The rl stage as the platform runs it: its events, stopping and resuming, and sharing the work among ranks."""

import threading
import time

import pytest
import torch
from safetensors.torch import load_file

from nanochat.__main__ import run as run_stage
from nanochat.contract.contract import EVENTS, MANIFEST, STOP, Artifact, Exit
from nanochat.contract.events import read

pytestmark = pytest.mark.usefixtures("one_core")


def of_kind(out, kind):
    return [e for e in read(out / EVENTS) if e["kind"] == kind]


def test_it_publishes_a_model_and_its_figures(small_run):
    out = small_run.stage("rl")
    results = small_run.results("rl")
    assert results["task"] == "sums"
    assert results["steps"] == 4
    assert 0 <= results["pass_at_1"] <= results["pass_at_8"] <= 1
    steps = [e for e in of_kind(out, "metric") if "reward" in e["values"]]
    assert [e["step"] for e in steps] == [1, 2, 3, 4]
    wanted = {
        "reward",
        "loss",
        "lrm",
        "grad_norm",
        "tok_per_s",
        "sequence_length",
        "entropy",
        "kl",
        "data_wait_pct",
        "sampling_pct",
    }
    assert wanted <= set(steps[0]["values"])
    assert steps[0]["values"]["kl"] == pytest.approx(0, abs=1e-6)  # the first answers are those of the model at the start
    assert 0 < steps[0]["values"]["entropy"] < 10
    assert all(0 <= e["values"]["data_wait_pct"] <= 100 for e in steps)
    samples = of_kind(out, "sample")
    assert {sample["step"] for sample in samples} == {0, 2}
    assert all(sample["prompt"].endswith("<|assistant_start|>") for sample in samples)
    assert [e["values"]["lrm"] for e in steps] == [1.0, 0.75, 0.5, 0.25]
    assert [e["step"] for e in of_kind(out, "metric") if "pass_at_1" in e["values"]] == [0, 2, 4]
    assert [(e["step"], e["final"]) for e in of_kind(out, "checkpoint")][-1] == (4, True)
    assert len(list((out / "checkpoints").glob("step_*"))) == 2  # keep_checkpoints
    assert {e["name"] for e in of_kind(out, "artifact")} == {"model", "results"}


def test_stopped_and_resumed_training_ends_with_the_same_weights(small_run, tmp_path):
    whole = small_run.stage("rl")
    first, second = tmp_path / "first", tmp_path / "second"

    def ask_to_stop():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not of_kind(first, "metric"):
            time.sleep(0.005)
        (first / STOP).touch()

    watcher = threading.Thread(target=ask_to_stop)
    watcher.start()
    code = run_stage(small_run.spec("rl", first))
    watcher.join()
    assert code == Exit.STOPPED
    assert not (first / MANIFEST).exists()
    saved = of_kind(first, "checkpoint")[-1]
    assert 0 < saved["step"] < 4
    assert not saved["final"]
    spec = small_run.spec("rl", second, resume_from=Artifact(path=saved["path"], sha256=saved["sha256"]))
    assert run_stage(spec) == 0
    assert of_kind(second, "metric")[0]["step"] >= saved["step"]
    for name, weight in load_file(whole / "checkpoints/step_000004/model.safetensors").items():
        resumed = load_file(second / "checkpoints/step_000004/model.safetensors")[name]
        torch.testing.assert_close(resumed, weight, rtol=0, atol=0)


@pytest.mark.slow
def test_two_ranks_share_the_questions(small_run, tmp_path, torchrun):
    small_run.stage("sft")
    out = tmp_path / "two"
    (tmp_path / "stage.json").write_text(small_run.spec("rl", out).model_dump_json())
    torchrun(2, "rl", tmp_path / "stage.json")
    alone = [e["values"] for e in of_kind(small_run.stage("rl"), "metric") if "reward" in e["values"]]
    reported = [e for e in of_kind(out, "metric") if "reward" in e["values"]]
    together = [e["values"] for e in reported]
    # Questions and seeds are the same, so the rollouts of the first step do not depend on the rank that makes them.
    assert together[0]["reward"] == alone[0]["reward"]
    assert together[0]["sequence_length"] == pytest.approx(alone[0]["sequence_length"])
    assert reported[-1]["step"] == 4

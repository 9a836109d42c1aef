"""A whole pretraining stage: its events, its outputs, its learning, and the input it refuses."""

import json
import math

import pytest
import torch

from nanochat.contract.contract import seal, verify
from nanochat.data.shards import Shard, write_index
from nanochat.distributed import Ranks
from nanochat.train.checkpoint import load_model
from nanochat.train.meter import Meter

from .stage_run import VOCAB


def test_training_learns_and_reports_every_step(trained):
    losses, bpb = trained.series("loss"), trained.series("val_bpb")
    assert losses[1] == pytest.approx(math.log(VOCAB), abs=1e-3)
    assert losses[24] < losses[1] - 0.5
    assert list(losses) == list(range(1, 25))
    assert list(bpb) == [0, 10, 20, 24]
    assert bpb[24] < bpb[0] - 0.5
    for key in ("lrm", "grad_norm", "tok_per_s", "dt_ms", "mem_gib", "data_wait_pct"):
        assert all(value >= 0 for value in trained.series(key).values()), key
    assert set(trained.series("mfu").values()) == {None}
    assert set(trained.series("usd").values()) == {None}
    progress = trained.events("progress")
    assert [p["done"] for p in progress] == list(range(25))
    assert progress[-1] | {"done": 24, "total": 24, "unit": "step", "eta_s": 0} == progress[-1]
    assert [s["step"] for s in trained.events("sample")] == [12] * 7 + [24] * 7


def test_publishes_a_model_and_its_figures(trained, inputs):
    model, meta = load_model(verify(trained.artifact("model")), "cpu")
    assert meta["step"] == 24
    assert meta["stage"] == "base_train"
    assert meta["tokenizer_sha256"] == inputs["tokenizer"].sha256
    assert meta["model_config"]["vocab_size"] == VOCAB
    results = trained.results()
    assert results["untrained_val_bpb"] == trained.series("val_bpb")[0]
    assert results["val_bpb"] == meta["val_bpb"] == trained.series("val_bpb")[24]
    assert results["min_val_bpb"] <= results["val_bpb"] < results["untrained_val_bpb"]
    assert (results["steps"], results["tokens"]) == (24, 24 * 256)
    assert results["params"] == model.num_params()
    assert results["tok_per_s"] > 0
    assert results["mfu"] is None


def test_keeps_the_last_checkpoints_and_the_final_one(trained):
    announced = trained.events("checkpoint")
    assert [(e["step"], e["final"]) for e in announced] == [*((s, False) for s in (5, 10, 15, 20, 24)), (24, True)]
    kept = sorted(p.name for p in (trained.out / "checkpoints").iterdir())
    assert kept == ["step_000020", "step_000024"]
    for event in (announced[-3], announced[-1]):
        directory = verify(trained.checkpoint(event["step"]))
        assert event["bytes"] == sum(p.stat().st_size for p in directory.iterdir())
    files = {f["path"] for f in json.loads((directory / "manifest.json").read_text())["files"]}
    assert files == {"model.safetensors", "meta.json", "train_state.json", "optim_rank0.safetensors", "loader_rank0.json"}
    assert trained.artifact("model") == trained.checkpoint(24)


@pytest.mark.parametrize(("name", "usd"), [("NVIDIA H100 80GB HBM3", 4 * 3.00 / 2), ("NVIDIA L40S", None)])
def test_the_cost_covers_all_gpus_if_their_price_is_known(monkeypatch, name, usd):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    ranks = Ranks(0, 4, torch.device("cuda"))
    assert Meter(ranks, flops_per_token=1).usd(train_seconds=1800) == usd


def test_indivisible_batch_is_refused(base):
    run = base(device_batch_size=3)
    assert run.in_process() == 64
    assert "base.total_batch_size" in run.error()["message"]
    assert "device_batch_size to 2" in run.error()["message"]


def test_a_depth_whose_heads_do_not_divide_is_refused(base):
    run = base()
    run.config = {**run.config, "model": {"depth": 11}}
    assert run.in_process() == 64
    assert "use an even depth" in run.error()["message"]


def test_unknown_field_is_refused(base):
    run = base(learning_rate=1)
    assert run.in_process() == 64
    assert "base.learning_rate" in run.error()["message"]


def test_missing_shard_is_named(base, inputs, tmp_path):
    gone = Shard(str(tmp_path / "gone.parquet"), 10)
    write_index(tmp_path / "shards", [gone], [gone])
    run = base()
    run.inputs = {**inputs, "shards": seal(tmp_path / "shards")}
    assert run.in_process() == 64
    assert "gone.parquet" in run.error()["message"]


def test_a_nonfinite_loss_stops_the_stage(base):
    run = base(optim={"embedding_lr": 100, "unembedding_lr": 100, "weight_decay": 1, "embedding_weight_decay": 1}, save_every=1)
    assert run.in_process() == 70
    error = run.error()
    assert error["code"] == "nonfinite"
    saved = [e["step"] for e in run.events("checkpoint")]
    assert (f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint yet") in error["message"]
    assert not run.events("artifact")


def test_training_that_ends_worse_than_untrained_fails_with_its_own_cause(base):
    run = base(optim={"embedding_lr": 100, "unembedding_lr": 100, "matrix_lr": 100}, num_iterations=30)
    assert run.in_process() == 70
    error = run.error()
    assert error["code"] == "diverged"
    assert "worse than the untrained model's" in error["message"]
    assert "lower the learning rates" in error["hint"]
    assert not run.events("artifact")
    said = [e["message"] for e in run.events("warning") if e["code"] == "diverging"]
    assert sum("val_bpb is" in text and "above that before training" in text for text in said) == 1
    assert sum("the loss is" in text and "for 20 steps" in text for text in said) == 1


def test_training_that_goes_well_warns_of_nothing(base):
    run = base()
    assert run.in_process() == 0
    assert not run.events("warning")

"""A run that starts from a model: only finetuning, more pretraining, or only reinforcement learning."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nanochat.__main__ import run as run_stage
from nanochat.config.recipe import RecipeError, resolve
from nanochat.contract.contract import EVENTS, Exit
from nanochat.contract.events import read
from nanochat.interchange import hf
from nanochat.planning import graph, preflight
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model

pytestmark = pytest.mark.usefixtures("one_core")
REPORTED = {"data", "report"}


@pytest.fixture
def made(small_run):
    """The folders of the pretrained, the midtrained and the finetuned model of a run, and of its tokenizer."""
    small_run.stage("sft")
    named = {"base": "base_train.model", "mid": "mid_train.model", "sft": "sft.model", "tokenizer": "tok_train.tokenizer"}
    return {name: Path(small_run.outputs[source].path) for name, source in named.items()}


@pytest.fixture
def starting(small_run, tmp_path):
    """`starting(model, first)` is a run of the same recipe from that model."""

    def make(model, first, **changes):
        start = {"model": str(model), "first": first, **changes.pop("start", {})}
        table = {**small_run.recipe.model_dump(mode="json"), "from": start}
        return type(small_run)(tmp_path / "run", resolve(table, changes))

    return make


def problems(run):
    return dict(preflight.check(run.recipe))


def test_which_stages_a_run_has_that_starts_from_a_model() -> None:
    def stages(first: str, **changes: object) -> list[str]:
        recipe = resolve("tiny", {"from.model": "/model", "from.first": first, **changes})
        published: set[str] = set()
        for stage in graph.stages(recipe):
            assert set(stage.inputs.values()) <= published, stage.name
            published |= {f"{stage.name}.{output}" for output in stage.outputs}
        return [stage.name for stage in graph.stages(recipe)]

    assert stages("sft") == ["start", "data", "sft", "chat_eval_sft", "report"]
    assert stages("mid_train") == ["start", "data", "mid_train", "chat_eval_mid", "sft", "chat_eval_sft", "report"]
    assert stages("base_train")[:4] == ["start", "data", "base_train", "base_eval"]
    assert stages("rl", **{"rl.enabled": True}) == ["start", "data", "rl", "chat_eval_rl", "report"]


def test_finetuning_only_starts_with_the_weights_of_the_model(starting, made, small_run):
    run = starting(made["mid"], "sft", start={"tokenizer": str(made["tokenizer"])})
    assert problems(run) == {}
    run.stage("report")
    assert {path.name for path in run.root.iterdir()} >= {"start", "data", "sft", "chat_eval_sft", "report"}
    assert not (run.root / "base_train").exists()
    # The same stage on the same model gives the same weights as in the run that made the model.
    one, other = (load_file(Path(r.outputs["sft.model"].path) / "model.safetensors") for r in (run, small_run))
    assert all((one[name] == other[name]).all() for name in one)
    assert run.results("start")["trained_by"] == "mid_train"
    assert run.outputs["start.tokenizer"].sha256 == small_run.outputs["tok_train.tokenizer"].sha256


def test_pretraining_goes_on_with_more_steps(starting, made, small_run):
    run = starting(made["base"], "base_train", start={"tokenizer": str(made["tokenizer"])}, **{"base.num_iterations": 4})
    assert problems(run) == {}
    run.stage("base_train")
    before, after = small_run.results("base_train"), run.results("base_train")
    assert after["steps"] == 4
    assert after["untrained_val_bpb"] == pytest.approx(before["val_bpb"], rel=1e-3)  # it starts where the other one ended


def test_reinforcement_learning_only(starting, made):
    run = starting(made["sft"], "rl", start={"tokenizer": str(made["tokenizer"])}, **{"rl.num_iterations": 1})
    assert problems(run) == {}
    assert json.loads((run.stage("rl") / "results" / "results.json").read_text())["steps"] == 1


def test_an_imported_folder_of_transformers(starting, made, tmp_path):
    model, _ = load_model(made["mid"], "cpu")
    hf.write(model, Tokenizer.load(made["tokenizer"]), tmp_path / "hf")
    run = starting(tmp_path / "hf", "sft")
    assert problems(run) == {}
    run.stage("start")
    got, meta = load_model(Path(run.outputs["start.model"].path), "cpu")
    assert meta["tokenizer_sha256"] == run.outputs["start.tokenizer"].sha256
    assert got.config == model.config
    assert all((a == b).all() for a, b in zip(got.parameters(), model.parameters(), strict=True))
    assert json.loads((run.stage("sft") / "results" / "results.json").read_text())["steps"] == 2


def test_another_local_run_gives_the_model_of_the_stage_before(starting, made, small_run, tmp_path):
    other = tmp_path / "other"
    for stage in ("tok_train", "base_train", "mid_train", "sft"):
        (other / stage).mkdir(parents=True)
        (other / stage / "attempt-1").symlink_to(small_run.root / stage)
    for first in ("sft", "mid_train", "base_train"):
        run = starting(other, first)
        assert problems(run) == {}
    run = starting(other, "sft")
    run.stage("start")
    assert run.results("start")["trained_by"] == "mid_train"


def test_what_does_not_fit_is_refused_before_any_work(starting, made, tmp_path):
    tokenizer = {"tokenizer": str(made["tokenizer"])}
    assert "no folder" in problems(starting(tmp_path / "none", "sft"))["from.model"]
    assert "holds no model" in problems(starting(tmp_path, "sft"))["from.model"]
    assert "give from.tokenizer" in problems(starting(made["mid"], "sft"))["from.model"]
    other = problems(starting(made["mid"], "sft", start=tokenizer, **{"model.depth": 4, "model.seq_len": 64}))["from.model"]
    assert "n_layer 2 (the recipe's: 4)" in other
    assert "set model.seq_len = 128, model.depth = 2" in other or "set model.depth = 2, model.seq_len = 128" in other
    vocabulary = problems(starting(made["mid"], "sft", start=tokenizer, **{"tokenizer.vocab_size": 600}))["from.model"]
    assert "set tokenizer.vocab_size = 500" in vocabulary
    assert "no stage rl" in problems(starting(made["sft"], "rl", start=tokenizer, **{"rl.enabled": False}))["from.first"]
    with pytest.raises(RecipeError, match=r"from\.first"):
        resolve("tiny", {"from.model": "/model", "from.first": "data"})
    with pytest.raises(RecipeError, match=r"from\.model"):
        resolve("tiny", {"from.first": "sft"})


def test_a_tokenizer_of_another_run_is_refused_by_the_stage(starting, made, tmp_path, tokenizer):
    from nanochat.contract.contract import seal

    tokenizer.save(tmp_path / "tokenizer")
    seal(tmp_path / "tokenizer", name="tokenizer")
    run = starting(made["mid"], "sft", start={"tokenizer": str(tmp_path / "tokenizer")})
    out = tmp_path / "start"
    assert run_stage(run.spec("start", out)) == Exit.BAD_INPUT
    error = [e for e in read(out / EVENTS) if e["kind"] == "error"][-1]
    assert error["code"] == "tokenizer_mismatch"

"""Runs that start from a checkpoint or a run of the registry, over HTTP."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from nanochat.config.recipe import resolve
from nanochat.config.shape import GPTConfig
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_bad_input import problem


def folder(path: Path, **files: Any) -> str:
    path.mkdir(parents=True)
    for name, content in {"manifest": {"files": []}, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def old(api: Api, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose midtraining is done, with a model and a tokenizer on disk."""
    root, worker = tmp_path_factory.mktemp("old"), ManualWorker(api.ledger)
    recipe = resolve("tiny")
    shape = asdict(GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size))
    run_id = str(api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"])
    worker.complete(run_id, "data")
    worker.complete(run_id, "tok_train", tokenizer=folder(root / "tokenizer", tokenizer={}))
    for stage in ("base_train", "mid_train"):
        worker.complete(run_id, stage, model=folder(root / stage, meta={"model_config": shape, "stage": stage}))
    return run_id


def submitted(api: Api, model: str, **overrides: Any) -> dict[str, Any]:
    changes = {"from.model": model, **{key.replace("__", "."): value for key, value in overrides.items()}}
    answer = api.http.post("/v1/runs", json={"recipe": "tiny", "overrides": changes})
    assert answer.status_code == 201, answer.text
    run: dict[str, Any] = answer.json()
    return run


def test_a_run_only_finetunes_the_model_of_another_run(api: Api, old: str) -> None:
    run = submitted(api, old)
    assert [stage["name"] for stage in run["stages"]] == ["start", "data", "sft", "chat_eval_sft", "report"]
    start = run["config"]["from"]
    assert (Path(start["model"]).name, Path(start["tokenizer"]).name, start["first"]) == ("mid_train", "tokenizer", "sft")
    assert Path(submitted(api, old, from__first="mid_train")["config"]["from"]["model"]).name == "base_train"
    planned = api.http.post("/v1/runs/plan", json={"recipe": "tiny", "overrides": {"from.model": old}}).json()
    assert [stage["name"] for stage in planned["stages"]] == ["start", "data", "sft", "chat_eval_sft", "report"]


def test_a_sweep_finetunes_the_model_of_another_run(api: Api, old: str) -> None:
    body = {"recipe": "tiny", "overrides": {"from.model": old}, "grid": {"sft.init_lr_frac": [0.1, 0.2]}}
    plan = api.http.post("/v1/sweeps/plan", json=body).json()
    assert [run["steps"] for run in plan["items"]] == [60, 60]  # of the recipe's SFT
    sweep = api.http.post("/v1/sweeps", json=body).json()
    assert (sweep["metric"], sweep["stage"]) == ("val_loss", "sft")  # pretraining, which reports val_bpb, is no part of it
    runs = [api.http.get(f"/v1/runs/{item['run_id']}").json() for item in sweep["items"]]
    assert [Path(run["config"]["from"]["model"]).name for run in runs] == ["mid_train", "mid_train"]
    (kept,) = [c for c in api.http.get(f"/v1/runs/{old}/checkpoints").json()["items"] if c["stage"] == "mid_train"]
    assert kept["pinned_at"]


def test_every_run_of_a_sweep_has_to_have_the_shape_of_the_model_that_it_starts_from(api: Api, old: str) -> None:
    body = {"recipe": "tiny", "overrides": {"from.model": old}, "grid": {"model.depth": [4, 6]}}
    error = problem(api.http.post("/v1/sweeps/plan", json=body), "invalid-recipe")["errors"][0]
    assert error["field"] == "from.model"
    assert "has another shape than the recipe" in error["message"]


def test_a_run_starts_from_a_checkpoint_which_is_pinned(api: Api, old: str) -> None:
    def checkpoints() -> dict[str, dict[str, Any]]:
        return {c["stage"]: c for c in api.http.get(f"/v1/runs/{old}/checkpoints").json()["items"]}

    base = checkpoints()["base_train"]
    run = submitted(api, base["id"], from__first="base_train", base__num_iterations=7)
    assert run["config"]["from"]["model"] == base["path"]
    assert [stage["name"] for stage in run["stages"]][:4] == ["start", "data", "base_train", "base_eval"]
    assert checkpoints()["base_train"]["pinned_at"]


def test_a_fork_of_a_run_that_started_from_a_model_starts_from_the_same_one(api: Api, old: str) -> None:
    worker = ManualWorker(api.ledger)
    first = submitted(api, old)
    for stage in ("start", "data", "sft"):
        worker.complete(first["id"], stage)

    def forked(**body: Any) -> tuple[list[str], dict[str, Any]]:
        answer = api.http.post(f"/v1/runs/{first['id']}/fork", json=body)
        assert answer.status_code == 201, answer.text
        run = answer.json()
        return [stage["name"] for stage in run["stages"] if stage["status"] == "SUCCEEDED"], run

    done, run = forked(overrides={"sft.num_iterations": 7})
    assert done == ["start", "data"]
    assert run["config"]["from"] == first["config"]["from"]
    assert worker.claim(run["id"], "sft").inputs["model"].path == f"/artifacts/{first['id']}/start/model"
    assert forked(overrides={"chat_eval.max_problems": 3})[0] == ["start", "data", "sft"]
    assert forked(from_stage="sft")[0] == ["start", "data"]
    # From an earlier stage of the same run: another model, and midtraining before SFT.
    done, run = forked(overrides={"from.model": old, "from.first": "mid_train"})
    assert done == ["data"]
    assert Path(run["config"]["from"]["model"]).name == "base_train"
    assert [stage["name"] for stage in run["stages"]][:3] == ["start", "data", "mid_train"]
    extended = api.http.post(f"/v1/runs/{first['id']}/extend", json={"stage": "sft", "steps": 600})
    assert extended.status_code == 201, extended.text
    assert [s["name"] for s in extended.json()["stages"] if s["status"] == "SUCCEEDED"] == ["start", "data"]


def test_a_run_without_a_model_is_refused(api: Api) -> None:
    empty = api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"]
    answer = problem(api.http.post("/v1/runs", json={"recipe": "tiny", "overrides": {"from.model": empty}}), "invalid-recipe")
    [error] = answer["errors"]
    assert error["field"] == "from.model"
    assert "no model for sft to start from: no finished mid_train or base_train" in error["message"]


@pytest.mark.parametrize(
    ("overrides", "field", "says"),
    [
        ({"from.model": "c_0123456789abcdef"}, "from.model", "there is no checkpoint"),
        ({"from.model": "r_0123456789abcdef"}, "from.model", "there is no run"),
        ({"from.model": "/no/such/folder"}, "from.model", "no folder /no/such/folder"),
        ({"from.model": "OLD", "from.first": "rl"}, "from.first", "no stage rl"),
        ({"from.model": "OLD", "model.depth": 6}, "from.model", "set model.depth = 4"),
        ({"from.model": "OLD", "from.first": "data"}, "from.first", "base_train"),
    ],
)
def test_what_does_not_fit_is_refused(api: Api, old: str, overrides: dict[str, Any], field: str, says: str) -> None:
    changes = {key: old if value == "OLD" else value for key, value in overrides.items()}
    answer = problem(api.http.post("/v1/runs", json={"recipe": "tiny", "overrides": changes}), "invalid-recipe")
    assert any(says in error["message"] for error in answer["errors"] if error["field"] == field), answer["errors"]

"""The stage graph is complete: every input is an output of an earlier stage."""

import importlib

import pytest

from nanochat.config import recipe
from nanochat.planning import graph, plan
from nanochat.report import build, summary

RECIPES = recipe.names()


@pytest.mark.parametrize("rl", [False, True])
def test_every_input_is_an_output_of_an_earlier_stage(rl: bool) -> None:
    published: set[str] = set()
    for stage in graph.stages(recipe.resolve("tiny", {"rl.enabled": rl})):
        assert set(stage.inputs.values()) <= published, stage.name
        published |= {f"{stage.name}.{output}" for output in stage.outputs}


def test_the_report_reads_the_results_of_every_stage() -> None:
    stages = graph.stages(recipe.resolve("tiny", {"rl.enabled": True}))
    report = stages[-1]
    assert set(report.inputs) == {s.name for s in stages} - {"report"}


def test_the_speedrun_has_these_stages() -> None:
    names = [s.name for s in graph.stages(recipe.Recipe())]
    expected = "data tok_train tok_eval base_train base_eval mid_train chat_eval_mid sft chat_eval_sft report"
    assert names == expected.split()


@pytest.mark.parametrize(
    ("left_out", "models", "promoting"),
    [
        ([], {"mid_train": "base_train", "chat_eval_mid": "mid_train", "sft": "mid_train", "chat_eval_sft": "sft"}, ["sft"]),
        (["mid"], {"sft": "base_train", "chat_eval_sft": "sft"}, ["sft"]),
        (["sft"], {"mid_train": "base_train", "chat_eval_mid": "mid_train"}, ["mid_train"]),
        (["mid", "sft"], {}, ["base_train"]),
        (["chat_eval", "base_eval", "tok_eval"], {"mid_train": "base_train", "sft": "mid_train"}, ["sft"]),
    ],
)
def test_stages_that_are_left_out_hand_on_the_model_before_them(
    left_out: list[str], models: dict[str, str], promoting: list[str]
) -> None:
    made = recipe.resolve("tiny", {f"{section}.enabled": False for section in left_out})
    stages = graph.stages(made)
    found = {s.name: s.inputs["model"].removesuffix(".model") for s in stages if "model" in s.inputs and s.name != "base_eval"}
    assert found == models
    assert [s.name for s in stages if s.promotes] == promoting
    assert {s.name for s in stages}.isdisjoint(left_out)
    assert [s.stage for s in plan.plan(made).stages] == [s.name for s in stages if s.trains]
    published: set[str] = set()
    for stage in stages:
        assert set(stage.inputs.values()) <= published, stage.name
        published |= {f"{stage.name}.{output}" for output in stage.outputs}


def test_other_conversations_and_tasks_leave_the_data_stage_as_it_is() -> None:
    def data(*mixture: dict[str, str]) -> graph.Config:
        made = recipe.resolve("tiny", {"sft.train": [*mixture, {"task": "identity"}]})
        return graph.config(made, graph.stages(made)[0])

    assert data({"jsonl": "/a.jsonl"}) != data({"task": "spelling"})
    assert graph.decisive(data({"jsonl": "/a.jsonl"})) == graph.decisive(data({"task": "spelling"})) == graph.decisive(data())
    assert graph.decisive(data({"jsonl": "https://host/a.jsonl"})) != graph.decisive(data())


def test_rl_follows_the_last_model_that_there_is() -> None:
    made = recipe.resolve("tiny", {"rl.enabled": True, "sft.enabled": False})
    stages = {s.name: s for s in graph.stages(made)}
    assert stages["rl"].inputs["model"] == "mid_train.model"
    assert [name for name, s in stages.items() if s.promotes] == ["rl"]


@pytest.mark.parametrize("kind", sorted({s.kind for s in graph.STAGES}))
def test_every_kind_has_a_run_function(kind: str) -> None:
    assert callable(importlib.import_module(f"nanochat.stages.{kind}").run)


@pytest.mark.parametrize("name", RECIPES)
def test_config_of_every_stage_is_json_and_names_its_recipe(name: str) -> None:
    import json

    r = recipe.resolve(name)
    for stage in graph.stages(r):
        assert json.loads(json.dumps(graph.config(r, stage)))["recipe"] == name


def test_every_stage_that_trains_is_planned_and_evaluated_and_has_its_section() -> None:
    trained = [stage for stage in graph.STAGES if stage.trains]
    assert {stage.trains for stage in trained} == set(plan.PLANNERS)
    for stage in trained:
        assert stage.trains in stage.sections
        assert stage.trains in recipe.Recipe.model_fields
        assert "model" in stage.outputs
        assert graph.evaluation_of(stage) is not None, stage.name


def test_the_report_names_and_orders_the_stages_as_the_table_does() -> None:
    made = build.report("r", {"name": "tiny"}, [], {})
    usual = [stage.name for stage in graph.STAGES if stage.kind not in ("start", "report")]  # few runs start from a model
    assert [s.name for s in made.stages] == usual
    assert summary.COLUMNS == {
        "BASE": ("base_train", "base_eval"),
        "MID": ("mid_train", "chat_eval_mid"),
        "SFT": ("sft", "chat_eval_sft"),
        "RL": ("rl", "chat_eval_rl"),
    }

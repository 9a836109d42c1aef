"""The stages of a run and what each needs, as data. Imports no torch.

An edge is an artifact, not a success: a stage is ready when every artifact it reads has been published. So `tok_train`
starts as soon as `data` has published the shards it needs, while `data` goes on fetching the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nanochat.config.recipe import Recipe

Queue = Literal["cpu", "gpu"]
Config = dict[str, object]


@dataclass(frozen=True, slots=True)
class StageDef:
    """One node. `inputs` maps the name a stage reads by to `producer.output`; `sections` are the recipe's parts it sees."""

    name: str
    kind: str
    queue: Queue
    sections: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    part: Literal["core", "rl"] = "core"


# Every training stage publishes its final checkpoint as `model`; every stage publishes its figures as `results`.
STAGES: tuple[StageDef, ...] = (
    StageDef("data", "data", "cpu", ("data", "tokenizer"), ("tok_shards", "shards", "tasks", "core", "results")),
    StageDef("tok_train", "tok_train", "cpu", ("tokenizer", "data"), ("tokenizer", "results"), {"shards": "data.tok_shards"}),
    StageDef(
        "tok_eval",
        "tok_eval",
        "cpu",
        ("tokenizer",),
        ("results",),
        {"tokenizer": "tok_train.tokenizer", "shards": "data.shards"},
    ),
    StageDef(
        "base_train",
        "base_train",
        "gpu",
        ("model", "base"),
        ("model", "results"),
        {"shards": "data.shards", "tokenizer": "tok_train.tokenizer", "core": "data.core"},
    ),
    StageDef(
        "base_eval",
        "base_eval",
        "gpu",
        ("base_eval",),
        ("results",),
        {"model": "base_train.model", "shards": "data.shards", "tokenizer": "tok_train.tokenizer", "core": "data.core"},
    ),
    StageDef(
        "mid_train",
        "mid_train",
        "gpu",
        ("mid",),
        ("model", "results"),
        {
            "model": "base_train.model",
            "shards": "data.shards",
            "tokenizer": "tok_train.tokenizer",
            "tasks": "data.tasks",
        },
    ),
    StageDef(
        "chat_eval_mid",
        "chat_eval",
        "gpu",
        ("chat_eval",),
        ("results",),
        {
            "model": "mid_train.model",
            "shards": "data.shards",
            "tokenizer": "tok_train.tokenizer",
            "tasks": "data.tasks",
        },
        params={"source": "mid"},
    ),
    StageDef(
        "sft",
        "sft",
        "gpu",
        ("sft",),
        ("model", "results"),
        {
            "model": "mid_train.model",
            "shards": "data.shards",
            "tokenizer": "tok_train.tokenizer",
            "tasks": "data.tasks",
        },
    ),
    StageDef(
        "chat_eval_sft",
        "chat_eval",
        "gpu",
        ("chat_eval",),
        ("results",),
        {"model": "sft.model", "shards": "data.shards", "tokenizer": "tok_train.tokenizer", "tasks": "data.tasks"},
        params={"source": "sft"},
    ),
    StageDef(
        "rl",
        "rl",
        "gpu",
        ("rl",),
        ("model", "results"),
        {"model": "sft.model", "shards": "data.shards", "tokenizer": "tok_train.tokenizer", "tasks": "data.tasks"},
        part="rl",
    ),
    StageDef(
        "chat_eval_rl",
        "chat_eval",
        "gpu",
        ("chat_eval",),
        ("results",),
        {"model": "rl.model", "shards": "data.shards", "tokenizer": "tok_train.tokenizer", "tasks": "data.tasks"},
        params={"source": "rl"},
        part="rl",
    ),
    StageDef(
        "report",
        "report",
        "cpu",
        (),
        ("report", "results"),
        {
            "data": "data.results",
            "tok_train": "tok_train.results",
            "tok_eval": "tok_eval.results",
            "base_train": "base_train.results",
            "base_eval": "base_eval.results",
            "mid_train": "mid_train.results",
            "chat_eval_mid": "chat_eval_mid.results",
            "sft": "sft.results",
            "chat_eval_sft": "chat_eval_sft.results",
        },
    ),
)

# Stages whose final checkpoint can hold a conversation: it is promoted, that is, offered to the inference service.
CHAT_MODELS: tuple[str, ...] = ("sft", "rl")


def stages(recipe: Recipe) -> list[StageDef]:
    """The stages of this recipe in an order in which producers precede consumers."""
    chosen = [s for s in STAGES if s.part == "core" or recipe.rl.enabled]
    if recipe.rl.enabled:
        extra = {"rl": "rl.results", "chat_eval_rl": "chat_eval_rl.results"}
        chosen = [_with_inputs(s, extra) if s.name == "report" else s for s in chosen]
    return chosen


def config(recipe: Recipe, stage: StageDef) -> Config:
    """The resolved configuration of one stage: the recipe's sections it sees, its parameters and the recipe's name."""
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in stage.sections}
    return {
        "recipe": recipe.name,
        **sections,
        **stage.params,
        **({"full_recipe": recipe.model_dump(mode="json")} if stage.kind == "report" else {}),
    }


def _with_inputs(stage: StageDef, extra: dict[str, str]) -> StageDef:
    return StageDef(stage.name, stage.kind, stage.queue, stage.sections, stage.outputs, {**stage.inputs, **extra})

"""The one table of stages: what each reads and makes, where it runs and how it is named. Imports no torch.

An edge of the graph is an artifact, not a success: a stage is ready as soon as every artifact that it reads has been
published. So `tok_train` starts while `data` still fetches the shards that only pretraining needs. To add a stage, add its
row and write `stages/<kind>.py` (CONTRIBUTING.md has a worked example).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nanochat.config.recipe import Recipe

Queue = Literal["cpu", "gpu"]
Config = dict[str, object]


@dataclass(frozen=True, slots=True)
class StageDef:
    """One stage of a run.

    `kind` names its module in `stages/`. `title` and `short` name it for people. `sections` are the parts of the recipe that
    it sees. `inputs` maps the name by which it reads an artifact to `producer.output`. Every stage publishes its figures as
    `results`; `outputs` are the artifacts before them. `trains` is the section that plans its training, None when it trains
    nothing. `promotes`: its model can hold a conversation, so its final checkpoint is offered to the inference service.
    `enabled_by` is the section that turns it on by its `enabled`; None: it is in every run.
    """

    name: str
    kind: str
    title: str
    short: str
    queue: Queue
    sections: tuple[str, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("results",)
    params: Mapping[str, str] = field(default_factory=dict)
    trains: str | None = None
    promotes: bool = False
    enabled_by: str | None = None

    @property
    def is_side(self) -> bool:
        """Whether it only measures. If it fails, the rest of the run goes on, and the report lacks its figures."""
        return self.outputs == SIDE_OUTPUTS


SIDE_OUTPUTS = ("results",)
_TEXT = {"shards": "data.shards", "tokenizer": "tok_train.tokenizer"}
_CHAT = {**_TEXT, "tasks": "data.tasks"}
_MODEL = ("model", "results")

STAGES: tuple[StageDef, ...] = (
    StageDef(
        "data",
        "data",
        "Data",
        "Data",
        "cpu",
        ("data", "tokenizer"),
        outputs=("tok_shards", "shards", "tasks", "core", "results"),
    ),
    StageDef(
        "tok_train",
        "tok_train",
        "Tokenizer training",
        "Tokenizer",
        "cpu",
        ("tokenizer", "data"),
        {"shards": "data.tok_shards"},
        ("tokenizer", "results"),
    ),
    StageDef("tok_eval", "tok_eval", "Tokenizer evaluation", "Tokenizer evaluation", "cpu", ("tokenizer",), _TEXT),
    StageDef(
        "base_train",
        "base_train",
        "Base model training",
        "Pretraining",
        "gpu",
        ("model", "base"),
        {**_TEXT, "core": "data.core"},
        _MODEL,
        trains="base",
    ),
    StageDef(
        "base_eval",
        "base_eval",
        "Base model evaluation",
        "Base evaluation",
        "gpu",
        ("base_eval",),
        {"model": "base_train.model", **_TEXT, "core": "data.core"},
    ),
    StageDef(
        "mid_train",
        "mid_train",
        "Midtraining",
        "Midtraining",
        "gpu",
        ("mid",),
        {"model": "base_train.model", **_CHAT},
        _MODEL,
        trains="mid",
    ),
    StageDef(
        "chat_eval_mid",
        "chat_eval",
        "Chat evaluation after midtraining",
        "Chat evaluation (mid)",
        "gpu",
        ("chat_eval",),
        {"model": "mid_train.model", **_CHAT},
        params={"source": "mid"},
    ),
    StageDef(
        "sft",
        "sft",
        "Supervised finetuning",
        "SFT",
        "gpu",
        ("sft",),
        {"model": "mid_train.model", **_CHAT},
        _MODEL,
        trains="sft",
        promotes=True,
    ),
    StageDef(
        "chat_eval_sft",
        "chat_eval",
        "Chat evaluation after finetuning",
        "Chat evaluation (SFT)",
        "gpu",
        ("chat_eval",),
        {"model": "sft.model", **_CHAT},
        params={"source": "sft"},
    ),
    StageDef(
        "rl",
        "rl",
        "Reinforcement learning",
        "RL",
        "gpu",
        ("rl",),
        {"model": "sft.model", **_CHAT},
        _MODEL,
        trains="rl",
        promotes=True,
        enabled_by="rl",
    ),
    StageDef(
        "chat_eval_rl",
        "chat_eval",
        "Chat evaluation after reinforcement learning",
        "Chat evaluation (RL)",
        "gpu",
        ("chat_eval",),
        {"model": "rl.model", **_CHAT},
        params={"source": "rl"},
        enabled_by="rl",
    ),
    # Reads the results of every other stage of the run; `stages` fills in its inputs.
    StageDef("report", "report", "Report", "Report", "cpu", (), outputs=("report", "results")),
)
# Stages whose final checkpoint is promoted.
CHAT_MODELS: tuple[str, ...] = tuple(stage.name for stage in STAGES if stage.promotes)


def stages(recipe: Recipe) -> list[StageDef]:
    """The stages of this recipe, in an order in which producers precede consumers."""
    chosen = [s for s in STAGES if s.enabled_by is None or getattr(recipe, s.enabled_by).enabled]
    results = {s.name: f"{s.name}.results" for s in chosen if s.kind != "report"}
    return [replace(s, inputs=results) if s.kind == "report" else s for s in chosen]


def evaluation_of(trained: StageDef) -> StageDef | None:
    """The stage that evaluates the model of a training stage."""
    model = f"{trained.name}.model"
    return next((s for s in STAGES if s.trains is None and s.inputs.get("model") == model), None)


def config(recipe: Recipe, stage: StageDef) -> Config:
    """The resolved configuration of one stage: the sections of the recipe that it sees, its parameters, the recipe's name."""
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in stage.sections}
    return {
        "recipe": recipe.name,
        **sections,
        **stage.params,
        **({"own_files": files} if stage.kind == "data" and (files := own_files(recipe)) else {}),
        **({"full_recipe": recipe.model_dump(mode="json")} if stage.kind == "report" else {}),
    }


def own_files(recipe: Recipe) -> list[str]:
    """Paths and URLs of the user's own conversations in the recipe's mixtures. The data stage reads and checks them all."""
    mixtures = (recipe.mid.train, recipe.mid.val, recipe.sft.train, recipe.sft.val)
    return sorted({use.path for uses in mixtures for use in uses if use.path is not None})

"""The one table of stages: what each reads and makes, where it runs and how it is named. Imports no torch.

An edge of the graph is an artifact, not a success: a stage is ready as soon as every artifact that it reads has been
published. So `tok_train` starts while `data` still fetches the shards that only pretraining needs. To add a stage, add its
row and write `stages/<kind>.py` (CONTRIBUTING.md has a worked example).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from nanochat.config.recipe import Recipe, TaskUse
from nanochat.tasks.catalog import BY_NAME, is_url
from nanochat.tasks.use import OwnFile, OwnMixture

Queue = Literal["cpu", "gpu"]
Config = dict[str, object]


@dataclass(frozen=True, slots=True)
class StageDef:
    """One stage of a run.

    `kind` names its module in `stages/`. `title` and `short` name it for people. `sections` are the parts of the recipe that
    it sees. `inputs` maps the name by which it reads an artifact to `producer.output`. Every stage publishes its figures as
    `results`; `outputs` are the artifacts before them. `trains` is the section that plans its training, None when it trains
    nothing. `promotes`: its model can hold a conversation, so its final checkpoint is offered to the inference service.
    `enabled_by` are the fields of the recipe that must all be true for the run to have it; none: it is in every run.
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
    enabled_by: tuple[str, ...] = ()

    @property
    def is_side(self) -> bool:
        """Whether it only measures. If it fails, the rest of the run goes on, and the report lacks its figures."""
        return self.outputs == SIDE_OUTPUTS


SIDE_OUTPUTS = ("results",)
SAMPLE = "sample"  # of the text is enough for a run that does not pretrain
_TEXT = {"shards": "data.shards", "tokenizer": "tok_train.tokenizer"}
_CHAT = {**_TEXT, "tasks": "data.tasks"}
PRETRAINING = {"data.tok_shards", "data.shards", "data.core"}  # what the data stage publishes apart from any conversation
_MODEL = ("model", "results")
GENERATED, CHECKED = "generated", "checked"
OWN_FILES, WORD_LIST = "own_files", "word_list"

STAGES: tuple[StageDef, ...] = (
    StageDef(
        "start",
        "start",
        "Model to start from",
        "Start",
        "cpu",
        ("from_",),
        outputs=("model", "tokenizer", "results"),
        enabled_by=("from_",),
    ),
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
    StageDef(
        "tok_eval",
        "tok_eval",
        "Tokenizer evaluation",
        "Tokenizer eval",
        "cpu",
        ("tokenizer",),
        _TEXT,
        enabled_by=("tok_eval.enabled",),
    ),
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
        "Base eval",
        "gpu",
        ("base_eval",),
        {"model": "base_train.model", **_TEXT, "core": "data.core"},
        enabled_by=("base_eval.enabled",),
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
        enabled_by=("mid.enabled",),
    ),
    StageDef(
        "chat_eval_mid",
        "chat_eval",
        "Chat evaluation after midtraining",
        "Chat eval (mid)",
        "gpu",
        ("chat_eval",),
        {"model": "mid_train.model", **_CHAT},
        params={"source": "mid"},
        enabled_by=("mid.enabled", "chat_eval.enabled"),
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
        enabled_by=("sft.enabled",),
    ),
    StageDef(
        "chat_eval_sft",
        "chat_eval",
        "Chat evaluation after finetuning",
        "Chat eval (SFT)",
        "gpu",
        ("chat_eval",),
        {"model": "sft.model", **_CHAT},
        params={"source": "sft"},
        enabled_by=("sft.enabled", "chat_eval.enabled"),
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
        enabled_by=("rl.enabled",),
    ),
    StageDef(
        "chat_eval_rl",
        "chat_eval",
        "Chat evaluation after reinforcement learning",
        "Chat eval (RL)",
        "gpu",
        ("chat_eval",),
        {"model": "rl.model", **_CHAT},
        params={"source": "rl"},
        enabled_by=("rl.enabled", "chat_eval.enabled"),
    ),
    # Reads the results of every other stage of the run; `stages` fills in its inputs.
    StageDef("report", "report", "Report", "Report", "cpu", (), outputs=("report", "results")),
)
TRAINED = tuple(stage.name for stage in STAGES if stage.trains)
_SHORT = {stage.name: stage.short for stage in STAGES}


def called(stage: str) -> str:
    """What people call the stage of this name, where there is little room."""
    return _SHORT.get(stage, stage)


def stages(recipe: Recipe) -> list[StageDef]:
    """The stages of this recipe, in an order in which producers precede consumers.

    A stage whose model would come from one that is left out reads that of the training stage before it, or the model from which
    the run starts. If the recipe has none of the stages whose model is promoted, its last training stage promotes.
    """
    chosen = [s for s in STAGES if all(_is_set(recipe, field) for field in s.enabled_by)]
    if recipe.from_ is not None:
        chosen = _from(recipe.from_.first, chosen)
    trained = [s.name for s in chosen if s.trains]
    promoting = {s.name for s in chosen if s.promotes} or set(trained[-1:])
    results = {s.name: f"{s.name}.results" for s in chosen if s.kind != "report"}
    return [
        replace(s, inputs=results if s.kind == "report" else _inputs(s, trained), promotes=s.name in promoting) for s in chosen
    ]


def _is_set(recipe: Recipe, field: str) -> bool:
    section, _, name = field.partition(".")
    return bool(getattr(getattr(recipe, section), name) if name else getattr(recipe, section))


def _inputs(stage: StageDef, trained: Sequence[str]) -> Mapping[str, str]:
    wanted = stage.inputs.get("model", "").partition(".")[0]
    if wanted not in TRAINED:
        return stage.inputs
    before = [name for name in TRAINED[: TRAINED.index(wanted) + 1] if name in trained]
    return {**stage.inputs, "model": f"{before[-1] if before else 'start'}.model"}


def _from(first: str, chosen: Sequence[StageDef]) -> list[StageDef]:
    """Of the `chosen` stages, those of a run whose stage `first` starts from a model that exists: without those that would have
    made the model and its tokenizer, and without the evaluations of these."""
    before = TRAINED[: TRAINED.index(first)]
    models = {f"{name}.model" for name in before}
    out = {*before, "tok_train", "tok_eval"} | {s.name for s in chosen if not s.trains and s.inputs.get("model") in models}
    kept = []
    for stage in (s for s in chosen if s.name not in out):
        inputs = {key: "start.tokenizer" if key == "tokenizer" else source for key, source in stage.inputs.items()}
        if stage.name == first:
            inputs["model"] = "start.model"
        params = {"text": SAMPLE} if stage.name == "data" and before else stage.params
        kept.append(replace(stage, inputs=inputs, params=params))
    return kept


def evaluation_of(trained: StageDef) -> StageDef | None:
    """The stage that evaluates the model of a training stage."""
    model = f"{trained.name}.model"
    return next((s for s in STAGES if s.trains is None and s.inputs.get("model") == model), None)


def config(recipe: Recipe, stage: StageDef) -> Config:
    """The resolved configuration of one stage: the sections of the recipe that it sees, its parameters, the recipe's name.

    The data stage also sees what it must fetch and check for the other sections.
    """
    sections = {name: getattr(recipe, name).model_dump(mode="json") for name in stage.sections}
    return {
        "recipe": recipe.name,
        **sections,
        **stage.params,
        **(_data_extras(recipe) if stage.kind == "data" else {}),
        **({"full_recipe": recipe.model_dump(mode="json")} if stage.kind == "report" else {}),
    }


def _data_extras(recipe: Recipe) -> Config:
    """What the data stage must know of the other sections. A part that is empty is left out, so that a fork keeps old data."""
    own = sorted({use.path for _, use in mixtures(recipe) if use.path is not None})
    return {
        GENERATED: generated(recipe),
        CHECKED: checked(recipe),
        **({OWN_FILES: own} if own else {}),
        **({WORD_LIST: recipe.data.words} if any(BY_NAME[use["task"]].word_list for use in generated(recipe)) else {}),
    }


def decisive(config: Config) -> Config:
    """The part of a stage's configuration that decides what it publishes.

    Of the user's own conversations the data stage publishes what it fetched. It only checks files of this machine, which the
    stages that train on them read themselves: a fork with other ones keeps its text and its pretrained model.
    """
    kept = {key: value for key, value in config.items() if key not in (GENERATED, CHECKED, OWN_FILES)}
    places = config.get(OWN_FILES)
    urls = [place for place in places if is_url(place)] if isinstance(places, list) else []
    return {**kept, OWN_FILES: urls} if urls else kept


def own_mixtures(recipe: Recipe) -> list[OwnMixture]:
    """The mixtures with files of the user's own conversations.

    Whether rows fit is asked only of a run that trains its tokenizer: with another model's, words may be split otherwise.
    """
    found: dict[str, list[tuple[str, TaskUse]]] = {}
    for at, use in mixtures(recipe):
        found.setdefault(at.rpartition(".")[0], []).append((at, use))
    return [
        OwnMixture(
            field=section,
            files=tuple(OwnFile(field=at, place=use.path, limit=use.limit) for at, use in uses if use.path is not None),
            alone=recipe.from_ is None and all(BY_NAME[use.task].kind == "file" for _, use in uses),
            keep=recipe.model.seq_len + section.startswith("sft."),
        )
        for section, uses in found.items()
        if any(use.path is not None for _, use in uses)
    ]


def unaffected(stage: str, outputs: Iterable[str], before: Config, now: Config) -> set[str]:
    """The `outputs` of a stage, as `stage.output`, that it publishes alike with both configurations.

    The data stage runs again to fetch other conversations, but publishes the same text: pretraining need not run again.
    """
    decisions = [decisive(before), decisive(now)]
    names = {f"{stage}.{output}" for output in outputs}
    if decisions[0] == decisions[1]:
        return names
    others = [{key: value for key, value in found.items() if key != OWN_FILES} for found in decisions]
    return names & PRETRAINING if others[0] == others[1] else set()


def checked(recipe: Recipe) -> dict[str, object]:
    """What the evaluations and the mixtures will read. The data stage reads it once, so that nothing is found wrong after pretraining."""
    kinds = {stage.kind for stage in stages(recipe)}
    judged = recipe.chat_eval if "chat_eval" in kinds else None
    return {
        "tasks": list(judged.tasks) if judged else [],
        "own": [use.model_dump(mode="json") for use in judged.own] if judged else [],
        "core": "base_eval" in kinds,
        **({"mixtures": [mixture.model_dump(mode="json") for mixture in own]} if (own := own_mixtures(recipe)) else {}),
        "allow_incomplete": {"core": recipe.base_eval.allow_incomplete, "tasks": recipe.chat_eval.allow_incomplete},
    }


def generated(recipe: Recipe) -> list[dict[str, str]]:
    """Every use of a generated task by the run's stages."""
    uses = [(field, use.task, use.split) for field, use in mixtures(recipe)]
    if recipe.rl.enabled:
        uses += [("rl.task", recipe.rl.task, "train"), ("rl.task", recipe.rl.task, "test")]
    if any(stage.kind == "chat_eval" for stage in stages(recipe)):
        uses += [("chat_eval.tasks", task, "test") for task in recipe.chat_eval.tasks]
    return [{"field": field, "task": task, "split": split} for field, task, split in uses if BY_NAME[task].kind == "generated"]


def mixtures(recipe: Recipe) -> Iterator[tuple[str, TaskUse]]:
    """Every entry of the mixtures that the run trains or validates on, with the path of its field."""
    trained = {stage.trains for stage in stages(recipe)}
    for section in ("mid", "sft"):
        spec = getattr(recipe, section)
        for split in ("train", "val") if section in trained else ():
            uses: tuple[TaskUse, ...] = getattr(spec, split)
            for i, use in enumerate(uses):
                yield f"{section}.{split}.{i}", use

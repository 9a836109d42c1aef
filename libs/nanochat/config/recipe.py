"""A whole run as typed, validated data: what to train, on what, for how long. Imports no torch.

A recipe is a TOML file under `recipes/` or an inline JSON object; `resolve` turns a name plus dotted overrides into a
frozen `Recipe`. Defaults are the numbers of the nanochat d20 speedrun (MIT, November 2025), so `Recipe()` is that run.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from nanochat.config import scaling
from nanochat.config.model_spec import (
    AdamSpec,
    Beta,
    Fraction,
    InitSpec,
    ModelSpec,
    OptimSpec,
    Positive,
    Spec,
    UnclippedOptimSpec,
)

__all__ = ["AdamSpec", "InitSpec", "ModelSpec", "OptimSpec", "Recipe", "RecipeError", "Spec", "load", "names", "resolve"]

SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


class RecipeError(ValueError):
    """A recipe that cannot run. `problems` lists (field, what is wrong and what to do)."""

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems))


DeviceBatch = Annotated[int, Field(gt=0, le=65_536, description="rows at a time on one device; fewer where they do not fit")]
Packing = Literal["stream", "bos_aligned"]


# -- data --


class PydocsSource(Spec):
    """English documentation found on any machine: docstrings and manuals of the standard library and installed packages."""

    kind: Literal["pydocs"] = "pydocs"
    max_chars: Positive = 12_000_000


class FolderSource(Spec):
    """Parquet shards with a `text` column in a local folder; the last file by name is the validation shard."""

    kind: Literal["folder"] = "folder"
    path: str


class HttpSource(Spec):
    """Numbered parquet shards under one base URL. The validation shard is pinned, whatever else is fetched."""

    kind: Literal["http"] = "http"
    base_url: str = "https://huggingface.co/datasets/karpathy/fineweb-edu-100b-shuffle/resolve/main"
    name: str = "shard_{index:05d}.parquet"
    train_shards: Positive = 240
    val_index: int = Field(default=1822, ge=0)
    sha256: dict[str, str] = Field(
        default_factory=dict, description="file name to digest, for the shards whose digest is known"
    )
    workers: Positive = 8

    @model_validator(mode="after")
    def _val_is_not_trained_on(self) -> HttpSource:
        if self.val_index < self.train_shards:
            raise ValueError(
                f"val_index {self.val_index} lies among the {self.train_shards} train shards; choose val_index >= train_shards"
            )
        return self


TextSource = Annotated[PydocsSource | FolderSource | HttpSource, Field(discriminator="kind")]


class DataSpec(Spec):
    source: TextSource = HttpSource()
    tok_chars: Positive = Field(
        default=2_000_000_000, description="characters that must be on disk before the tokenizer trains"
    )
    tasks: str | None = Field(
        default="https://huggingface.co",
        description='hub data of the tasks: a folder, a hub\'s base URL, or null (in TOML: "none") for none: then only built-in tasks work',
    )
    core: str | None = Field(
        default="https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip",
        description='the CORE bundle: a folder, a zip\'s URL, or null (in TOML: "none") for none',
    )

    @field_validator("tasks", "core", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any) -> Any:
        # TOML has no null, and these two have a default to get away from.
        return None if value in ("none", "") else value


class TokenizerSpec(Spec):
    vocab_size: int = Field(default=65_536, ge=256 + len(SPECIAL_TOKENS), description="special tokens included")
    max_chars: Positive = 2_000_000_000
    doc_cap: Positive = 10_000


# -- training --


class TrainSpec(Spec):
    """What base, mid and SFT share."""

    device_batch_size: DeviceBatch = 32
    eval_every: int = Field(default=250, description="steps; -1 only at the end")
    save_every: int = Field(default=1000, description="steps; -1 only at the end")
    keep_checkpoints: Positive = Field(default=2, description="checkpoints kept: so many of the last, and the best")
    optim: OptimSpec = OptimSpec()
    deterministic: bool = False
    compile: bool | None = Field(default=None, description="null: on CUDA only")
    precision: Literal["bf16", "fp8"] = Field(
        default="bf16",
        description="of the blocks' products while training, on GPUs that have fp8; 1.17 x tokens/s at d26, about 5 % at equal "
        "capability, nothing at d12 (2026-02-02); weights and optimizer stay fp32",
    )


class BaseSpec(TrainSpec):
    """Horizon: `num_iterations`, else `target_flops`, else `param_data_ratio` tokens per parameter."""

    total_batch_size: Positive = Field(
        default=524_288,
        description='tokens per step; "auto" in a recipe is the power of two nearest 2^19 x (parameters / those of d12)^0.383, '
        "as horizons grow with parameters (2026-02-05)",
    )
    num_iterations: Positive | None = None
    target_flops: float | None = Field(default=None, gt=0)
    param_data_ratio: float = Field(default=20.0, gt=0)
    horizon_params: Literal["all", "matrices_and_head"] = Field(
        default="all",
        description="the parameters that param_data_ratio counts: scaling laws are clean in those that are multiplied (2026-01-27)",
    )
    warmup_ratio: Fraction = 0.0
    warmup_steps: Positive | None = Field(default=None, description="in place of warmup_ratio; 40 since 2026-03-09")
    warmdown_ratio: Fraction = Field(default=0.2, description='0.4 "biggest free win" (2026-01-05), 0.65 since 2026-03-09')
    final_lr_frac: Fraction = Field(default=0.0, description="0.05 since 2026-03-09")
    scale_lr: bool = Field(
        default=False, description="every learning rate x sqrt(total_batch_size / 2^19) (2026-01-07, 2026-02-06)"
    )
    scale_weight_decay: bool = Field(
        default=False,
        description="matrix_weight_decay, given for d12, x sqrt(total_batch_size / 2^19) x (d12's horizon / this one's), which "
        "leaves the decay's time constant the same share of the run (2026-02-06)",
    )
    weight_decay_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="of matrix_weight_decay, to 0 at the end; linear 2026-01-10, cosine since 2026-03-09"
    )
    momentum: Beta = Field(default=0.95, description="Muon's, reached from 0.85; 0.97 since 2026-03-09")
    momentum_ramp_steps: Positive = Field(default=300, description="400 since 2026-03-09")
    final_momentum: Beta | None = Field(
        default=None, description="reached over the warm-down; null: stays. 0.90 since 2026-03-14"
    )
    packing: Packing = Field(
        default="stream", description="train rows: one stream of documents, or each row begun by a document (best fit, cropped)"
    )
    val_packing: Packing = Field(default="stream", description="of validation, whose figures compare only within one packing")
    shuffle: bool = Field(default=False, description="row groups in shuffled order from the first epoch on, not the second")
    eval_tokens: Positive = 20 * 524_288
    core_every: int = 2000
    core_max_per_task: Positive = 500
    sample_every: int = 2000


class TaskUse(Spec):
    """One entry of a mixture. `repeat` oversamples; `limit` takes the first rows; `size` is for generated tasks."""

    task: Literal["smoltalk", "mmlu", "arc_easy", "arc_challenge", "gsm8k", "identity", "spelling", "counting", "sums", "jsonl"]
    split: str = "train"
    limit: Positive | None = None
    repeat: Positive = 1
    size: Positive | None = Field(default=None, description="rows of a generated task")
    path: str | None = Field(default=None, description="file of conversations, for task jsonl")


class MidSpec(TrainSpec):
    total_batch_size: Positive = 524_288
    num_iterations: Positive | None = Field(default=None, description="null: one pass over the mixture")
    optim: UnclippedOptimSpec = UnclippedOptimSpec()
    init_lr_frac: Fraction = 1.0
    warmdown_ratio: Fraction = 0.2
    eval_every: int = 150
    eval_tokens: Positive = 20 * 524_288
    train: tuple[TaskUse, ...] = (
        TaskUse(task="smoltalk"),
        TaskUse(task="mmlu", split="auxiliary_train"),
        TaskUse(task="gsm8k"),
        TaskUse(task="identity", size=1000, repeat=2),
        TaskUse(task="spelling", size=200_000),
        TaskUse(task="counting", size=80_000),
    )
    val: tuple[TaskUse, ...] = (
        TaskUse(task="smoltalk", split="test"),
        TaskUse(task="mmlu", split="test", limit=5200),
        TaskUse(task="gsm8k", split="test", limit=420),
    )


class SftSpec(TrainSpec):
    device_batch_size: DeviceBatch = 4
    examples_per_step: Positive = 32
    num_epochs: Positive = 1
    num_iterations: Positive | None = Field(default=None, description="null: num_epochs passes over the mixture")
    optim: UnclippedOptimSpec = UnclippedOptimSpec()
    init_lr_frac: Fraction = 0.02
    eval_every: int = 100
    eval_batches: Positive = 100
    metrics_every: int = 200
    metrics_max_problems: Positive = 1024
    train: tuple[TaskUse, ...] = (
        TaskUse(task="arc_easy"),
        TaskUse(task="arc_challenge"),
        TaskUse(task="gsm8k"),
        TaskUse(task="smoltalk", limit=10_000),
        TaskUse(task="identity", size=1000),
        TaskUse(task="spelling", size=300),
        TaskUse(task="counting", size=300),
    )
    val: tuple[TaskUse, ...] = (TaskUse(task="smoltalk", split="test"),)


class RlSpec(Spec):
    """REINFORCE with a group-mean baseline on one generative task with a 0/1 reward."""

    enabled: bool = False
    task: Literal["gsm8k", "sums", "counting"] = "gsm8k"
    size: Positive | None = None
    device_batch_size: Positive = 8
    examples_per_step: Positive = 16
    num_samples: Positive = 16
    max_new_tokens: Positive = 256
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=50, ge=0)
    num_epochs: Positive = 1
    num_iterations: Positive | None = None
    init_lr_frac: Fraction = 0.05
    save_every: int = 60
    keep_checkpoints: Positive = 2
    eval_every: int = 60
    eval_examples: Positive = 400
    optim: UnclippedOptimSpec = UnclippedOptimSpec()
    deterministic: bool = False


# -- evaluation --


class BaseEvalSpec(Spec):
    bpb_tokens: Positive = 20 * 524_288
    core_max_per_task: Positive | None = Field(default=None, description="null: every example")
    device_batch_size: Positive = 32


ChatTask = Literal["arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "counting", "spelling", "sums"]


class ChatEvalSpec(Spec):
    tasks: tuple[ChatTask, ...] = ("arc_easy", "arc_challenge", "mmlu", "gsm8k", "humaneval", "counting")
    max_problems: Positive | None = None
    max_new_tokens: Positive = 512
    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=50, ge=0)
    num_samples: Positive = 1
    batch_size: Positive = 8
    generated_size: Positive = Field(default=256, description="problems of a generated task")


class Recipe(Spec):
    name: str = Field(default="speedrun", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    description: str = ""
    seed: int = 42
    data: DataSpec = DataSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    model: ModelSpec = ModelSpec()
    base: BaseSpec = BaseSpec()
    base_eval: BaseEvalSpec = BaseEvalSpec()
    mid: MidSpec = MidSpec()
    sft: SftSpec = SftSpec()
    rl: RlSpec = RlSpec()
    chat_eval: ChatEvalSpec = ChatEvalSpec()

    @model_validator(mode="before")
    @classmethod
    def _auto_batch(cls, table: Any) -> Any:
        # Here, not where it is used: whatever reads a validated recipe finds a number.
        base = table.get("base") if isinstance(table, dict) else None
        if not isinstance(base, dict) or base.get("total_batch_size") != "auto":
            return table
        try:
            model = ModelSpec.model_validate(table.get("model", {}))
            size = scaling.batch_size(model, TokenizerSpec.model_validate(table.get("tokenizer", {})).vocab_size)
        except ValidationError:
            size = 524_288  # the fields that are wrong are reported by their own checks
        return {**table, "base": {**base, "total_batch_size": size}}

    @model_validator(mode="after")
    def _batches_divide(self) -> Recipe:
        for name in ("base", "mid"):
            spec = getattr(self, name)
            if spec.total_batch_size % self.model.seq_len:
                below = max(1, spec.total_batch_size // self.model.seq_len) * self.model.seq_len
                raise PydanticCustomError(
                    "indivisible",
                    "{field} {value} is not a multiple of model.seq_len {seq_len}; the nearest that fit are {below} and {above}",
                    {
                        "field": f"{name}.total_batch_size",
                        "value": spec.total_batch_size,
                        "seq_len": self.model.seq_len,
                        "below": below,
                        "above": below + self.model.seq_len,
                    },
                )
        return self


# -- resolving --


def names() -> list[str]:
    """Names of the recipes that ship with the project, sorted."""
    return sorted(
        p.name.removesuffix(".toml") for p in resources.files("nanochat.config.recipes").iterdir() if p.name.endswith(".toml")
    )


def load(name: str) -> dict[str, Any]:
    """The raw table of a shipped recipe, or of a TOML file when `name` is a path. Raises RecipeError when there is none."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise RecipeError([("recipe", f"no file {name}")])
        text = path.read_text(encoding="utf-8")
    elif name in names():
        text = resources.files("nanochat.config.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError([("recipe", f"unknown recipe {name!r}; known: {', '.join(names())}")])
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise RecipeError([("recipe", f"{name} is not valid TOML: {err}")]) from err


def resolve(recipe: str | dict[str, Any], overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe's name or table, plus dotted overrides (`{"base.num_iterations": 20}`), as a validated Recipe.

    A table value replaces a table of the same kind key by key, except a tagged one whose `kind` changes, which it
    replaces whole. Raises RecipeError naming each field.
    """
    table = load(recipe) if isinstance(recipe, str) else copy.deepcopy(recipe)
    for dotted, value in (overrides or {}).items():
        _set(table, dotted, value)
    try:
        return Recipe.model_validate(table)
    except ValidationError as err:
        raise RecipeError([(_named(e) or _field(e["loc"]), _message(e)) for e in err.errors()]) from err


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """`a.b=value` pairs as a command line gives them; a value is JSON when it parses as JSON, else text. Raises RecipeError."""
    found = {}
    for pair in pairs:
        key, sep, text = pair.partition("=")
        if not sep:
            raise RecipeError([(pair, "write overrides as field=value")])
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError:
            found[key] = text
    return found


def _set(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for key in parents:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError([(dotted, f"{key!r} is not a table")])
    old = table.get(leaf)
    same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
    table[leaf] = {**old, **value} if same_kind and isinstance(old, dict) else value


def _named(error: Any) -> str | None:
    # A check over several fields sits at their common parent; it names the field to change in its context.
    return str(error["ctx"]["field"]) if error["type"] == "indivisible" else None


def _field(loc: tuple[int | str, ...]) -> str:
    # Pydantic puts a union member's tag into the path; the user never wrote it.
    return (
        ".".join(str(p) for i, p in enumerate(loc) if not (i and loc[i - 1] == "source" and p in ("pydocs", "folder", "http")))
        or "recipe"
    )


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; remove it or check the spelling"
    return str(error["msg"]).removeprefix("Value error, ")

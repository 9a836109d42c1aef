"""The recipe's settings for the stages that train: pretraining, midtraining, SFT and reinforcement learning. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from nanochat.config.model_spec import OptimSpec, Spec, UnclippedOptimSpec
from nanochat.contract.bounds import (
    Beta,
    DeviceRows,
    Every,
    Fraction,
    GeneratedRows,
    Length,
    Repeats,
    Rows,
    Steps,
    StepTokens,
    Tokens,
    TopK,
)
from nanochat.tasks.use import RewardedTask, TaskUse

# Field types with a description, for fields that several sections have. A section only states its own default.
DeviceBatch = Annotated[
    DeviceRows,
    Field(
        description="Maximum number of rows that one device processes at a time. If these are predicted not to fit, "
        "fewer are processed at a time but more often, so that an optimizer step stays the same.",
    ),
]
EvalEvery = Annotated[
    Every, Field(description="Optimizer steps between evaluations; -1 means none in between. There is always one at the end.")
]
SaveEvery = Annotated[
    Every, Field(description="Optimizer steps between checkpoints; -1 means none in between. There is always one at the end.")
]
KeepCheckpoints = Annotated[
    int,
    Field(
        gt=0,
        le=1000,
        json_schema_extra={"unit": "checkpoints"},
        description="How many of the newest checkpoints are kept; the best one is kept as well.",
    ),
]
Deterministic = Annotated[
    bool,
    Field(description="Use only deterministic GPU kernels, so that a repeated or resumed run gives the same bits. Slower."),
]
EvalTokens = Annotated[Tokens, Field(description="Validation tokens of one evaluation, over all processes.")]
InitLrFrac = Annotated[
    Fraction, Field(description="Learning rate at the start of this stage, as a fraction of those in `optim`.")
]
Unclipped = Annotated[UnclippedOptimSpec, Field(description="The optimizer of this stage.")]
Mixture = Annotated[tuple[TaskUse, ...], Field(min_length=1, max_length=1000)]
Packing = Literal["stream", "bos_aligned"]
LEFT_OUT = "Whether the run has this stage. Without it, the next one starts from the model before; the last model is served."


def _or_auto(schema: dict[str, Any]) -> None:
    """A recipe may say "auto"; `recipe.resolve` puts a number in its place."""
    number = {key: schema.pop(key) for key in ("type", "exclusiveMinimum", "maximum")}
    schema["anyOf"] = [number, {"const": "auto"}]
    schema["unit"] = "tokens"


class TrainSpec(Spec):
    """Settings that pretraining, midtraining and SFT share."""

    device_batch_size: DeviceBatch = 32
    eval_every: EvalEvery = 250
    save_every: SaveEvery = 1000
    keep_checkpoints: KeepCheckpoints = 2
    optim: OptimSpec = Field(default=OptimSpec(), description="The optimizer of this stage.")
    deterministic: Deterministic = False
    compile: bool | None = Field(
        default=None, description="Whether torch.compile compiles the model; null means on CUDA only, and never for SFT."
    )
    precision: Literal["bf16", "fp8"] = Field(
        default="bf16",
        description="Number format of the matrix products in the blocks while training. `fp8` takes effect on GPUs that have it; "
        "weights and optimizer state stay fp32. nanochat measured 1.17 x tokens/s at d26, a speedup of about 5 % "
        "at equal capability, and none at d12 (2026-02-02).",
    )


class BaseSpec(TrainSpec):
    """Pretraining. Its length is `num_iterations` if set, else it follows from `target_flops` if set, else from
    `param_data_ratio`."""

    total_batch_size: StepTokens = Field(
        default=524_288,
        json_schema_extra=_or_auto,
        description='Tokens of one optimizer step, over all processes. A recipe may say "auto": the power of two nearest to '
        "2^19 x (parameters / parameters at d12)^0.383, because longer runs want larger batches (nanochat, 2026-02-05).",
    )
    num_iterations: Steps | None = Field(
        default=None, description="Optimizer steps; null means that `target_flops` or `param_data_ratio` decides."
    )
    target_flops: float | None = Field(
        default=None,
        gt=0,
        le=1e30,
        json_schema_extra={"unit": "FLOPs"},
        description="Training FLOPs of the whole stage; null means that `param_data_ratio` decides.",
    )
    param_data_ratio: float = Field(
        default=20.0,
        gt=0,
        le=1e6,
        description="Training tokens per parameter. nanochat: 12 since 2026-03-24, with `horizon_params` of "
        "`matrices_and_head`.",
    )
    horizon_params: Literal["all", "matrices_and_head"] = Field(
        default="all",
        description="Parameters that `param_data_ratio` counts. `matrices_and_head` leaves out embeddings: scaling laws come "
        "out cleanest in the parameters that take part in matrix products. nanochat: `matrices_and_head` since 2026-01-27.",
    )
    warmup_ratio: Fraction = Field(
        default=0.0, description="Fraction of the steps in which the learning rate rises from near 0 to its peak."
    )
    warmup_steps: Steps | None = Field(
        default=None,
        description="Optimizer steps of that rise; overrides `warmup_ratio` when set. nanochat: 40 since 2026-03-09.",
    )
    warmdown_ratio: Fraction = Field(
        default=0.2,
        description="Fraction of the steps, at the end, in which the learning rate falls linearly to `final_lr_frac`. "
        'nanochat: 0.65 since 2026-03-09 (0.4, "the biggest free win", on 2026-01-05).',
    )
    final_lr_frac: Fraction = Field(
        default=0.0, description="Learning rate of the last step as a fraction of its peak. nanochat: 0.05 since 2026-03-09."
    )
    scale_lr: bool = Field(
        default=False,
        description="Multiply every learning rate by sqrt(total_batch_size / 2^19). "
        "nanochat: on (log entries of 2026-01-07 and 2026-02-06).",
    )
    scale_weight_decay: bool = Field(
        default=False,
        description="Take `optim.matrix_weight_decay` as tuned for d12 and multiply it by sqrt(total_batch_size / 2^19) x (tokens "
        "of d12's run / tokens of this run). Weights then forget over the same share of the run at every size. "
        "nanochat: on since 2026-02-06.",
    )
    weight_decay_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="How `optim.matrix_weight_decay` falls over the run: not at all, or to 0 at the end. "
        "nanochat: `cosine` since 2026-03-09 (`linear` on 2026-01-10).",
    )
    momentum: Beta = Field(
        default=0.95, description="Peak momentum of Muon, which rises to it from 0.85. nanochat: 0.97 since 2026-03-09."
    )
    momentum_ramp_steps: Steps = Field(default=300, description="Optimizer steps of that rise. nanochat: 400 since 2026-03-09.")
    final_momentum: Beta | None = Field(
        default=None,
        description="Momentum of Muon at the last step, to which it falls over the warm-down; null means it stays at `momentum`. "
        "nanochat: 0.90 since 2026-03-14.",
    )
    packing: Packing = Field(
        default="stream",
        description="How text becomes training rows. `stream` cuts one stream of documents into rows. `bos_aligned` begins each "
        "row with a document, adds the documents that fit best and crops one to fill the rest. "
        "nanochat: `bos_aligned` since 2026-01-13.",
    )
    val_packing: Packing = Field(
        default="stream",
        description="How text becomes validation rows, as in `packing`. Bits per byte compare only within one packing.",
    )
    shuffle: bool = Field(
        default=False,
        description="Read the row groups of the shards in shuffled order from the first epoch on. Without it the first epoch is in "
        "file order and only later epochs are shuffled.",
    )
    eval_tokens: EvalTokens = 20 * 524_288
    core_every: Every = Field(
        default=2000, description="Optimizer steps between evaluations of CORE, and once at the end; -1 means never."
    )
    core_max_per_task: Rows = Field(
        default=500, description="Maximum number of examples of each CORE task in these evaluations."
    )
    sample_every: Every = Field(
        default=2000, description="Optimizer steps between sample completions, and once at the end; -1 means never."
    )


class MidSpec(TrainSpec):
    """Midtraining: the base model learns conversations, tasks and tool use, from every token of them."""

    enabled: bool = Field(default=True, description=LEFT_OUT)
    total_batch_size: StepTokens = Field(
        default=524_288,
        json_schema_extra={"unit": "tokens"},
        description="Tokens of one optimizer step, over all processes.",
    )
    num_iterations: Steps | None = Field(default=None, description="Optimizer steps; null means one pass over the mixture.")
    optim: Unclipped = UnclippedOptimSpec()
    packing: Literal["stream", "best_fit"] = Field(
        default="stream",
        description="How conversations become rows. `stream` cuts one stream of them into rows. `best_fit` splits none: each row "
        "begins with a conversation, adds those that fit best, and is padded.",
    )
    init_lr_frac: Fraction = Field(
        default=1.0,
        description="Learning rate at the start of this stage, as a fraction of those in `optim`. "
        "nanochat: 0.8 since 2026-02-16.",
    )
    warmdown_ratio: Fraction = Field(
        default=0.2,
        description="Fraction of the stage, at its end, in which the learning rate falls linearly to 0. "
        "nanochat: 0.5 since 2026-02-16.",
    )
    eval_every: EvalEvery = 150
    eval_tokens: EvalTokens = 20 * 524_288
    train: Mixture = Field(
        default=(
            TaskUse(task="smoltalk"),
            TaskUse(task="mmlu", split="auxiliary_train"),
            TaskUse(task="gsm8k"),
            TaskUse(task="identity", size=1000, repeat=2),
            TaskUse(task="simplespelling", size=200_000),
            TaskUse(task="spellingbee", size=80_000),
        ),
        description="Mixture to train on.",
    )
    val: Mixture = Field(
        default=(
            TaskUse(task="smoltalk", split="test"),
            TaskUse(task="mmlu", split="test", limit=5200),
            TaskUse(task="gsm8k", split="test", limit=420),
        ),
        description="Mixture to validate on.",
    )


class SftSpec(TrainSpec):
    """Supervised finetuning: the model learns only from the assistant's words."""

    enabled: bool = Field(default=True, description=LEFT_OUT)
    device_batch_size: DeviceBatch = 4
    examples_per_step: DeviceRows = Field(default=32, description="Rows of one optimizer step, over all processes.")
    packing: Literal["rows", "best_fit"] = Field(
        default="rows",
        description="How conversations become rows. `rows` puts each into a row of its own. `best_fit` puts as many whole ones into "
        "a row as fit best, so a step has several times as many, and the stage fewer steps. nanochat: `best_fit` since 2026-01-31.",
    )
    num_epochs: Repeats = Field(default=1, description="Passes over the mixture.")
    num_iterations: Steps | None = Field(default=None, description="Optimizer steps; overrides `num_epochs` when set.")
    optim: Unclipped = UnclippedOptimSpec()
    init_lr_frac: InitLrFrac = 0.02
    eval_every: EvalEvery = 100
    eval_batches: Steps = Field(
        default=100, description="Validation batches of `device_batch_size` rows that each process evaluates."
    )
    metrics_every: Every = Field(
        default=200,
        description="Optimizer steps between evaluations of MMLU and ARC-Easy, and once at the end; -1 means never.",
    )
    metrics_max_problems: Rows = Field(default=1024, description="Maximum number of problems of each of these tasks.")
    train: Mixture = Field(
        default=(
            TaskUse(task="arc_easy"),
            TaskUse(task="arc_challenge"),
            TaskUse(task="gsm8k"),
            TaskUse(task="smoltalk", limit=10_000),
            TaskUse(task="identity", size=1000),
            TaskUse(task="simplespelling", size=300),
            TaskUse(task="spellingbee", size=300),
        ),
        description="Mixture to train on.",
    )
    val: Mixture = Field(default=(TaskUse(task="smoltalk", split="test"),), description="Mixture to validate on.")


class RlSpec(Spec):
    """Reinforcement learning: REINFORCE with the group's mean as baseline, on one generative task."""

    enabled: bool = Field(default=False, description="Whether the run has this stage and the evaluation after it.")
    task: RewardedTask = Field(default="gsm8k", description="Task to learn.")
    reward: str = Field(
        default="correct",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="Name of the reward function: `correct` (1 if the answer is right, else 0), `correct_or_formatted` (0.1 for a "
        "wrong answer with a `#### `), or one of your own, an entry point of the group `nanochat.rewards`.",
    )
    size: GeneratedRows | None = Field(
        default=None, description="Questions to learn from, the first of the task's; null means all, or 1000 generated ones."
    )
    device_batch_size: DeviceRows = Field(
        default=8,
        description="Answers to one question that one device learns from at a time; it generates all answers of a step together.",
    )
    examples_per_step: DeviceRows = Field(
        default=16, description="Questions of one optimizer step, over all processes; a multiple of the number of processes."
    )
    num_samples: Repeats = Field(default=16, description="Answers sampled to each question: the group of the baseline.")
    max_new_tokens: Length = Field(default=256, description="Maximum number of tokens of one answer.")
    temperature: float = Field(default=1.0, gt=0, le=100, description="Sampling temperature of answers.")
    top_k: TopK = Field(default=50, description="Answers are sampled from this many likeliest tokens; 0 means from all.")
    num_epochs: Repeats = Field(default=1, description="Passes over the questions.")
    num_iterations: Steps | None = Field(default=None, description="Optimizer steps; overrides `num_epochs` when set.")
    init_lr_frac: InitLrFrac = 0.05
    save_every: SaveEvery = 60
    keep_checkpoints: KeepCheckpoints = 2
    eval_every: EvalEvery = 60
    eval_examples: Rows = Field(default=400, description="Test questions of one evaluation of pass@1 to pass@8.")
    optim: Unclipped = UnclippedOptimSpec()
    deterministic: Deterministic = False

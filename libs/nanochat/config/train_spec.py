"""What a recipe says of the stages that train: pretraining, midtraining, SFT and reinforcement learning. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nanochat.config.model_spec import Beta, Fraction, OptimSpec, Positive, Spec, UnclippedOptimSpec
from nanochat.tasks.use import RewardedTask, TaskUse

DeviceBatch = Annotated[int, Field(gt=0, le=65_536, description="rows at a time on one device; fewer where they do not fit")]
Packing = Literal["stream", "bos_aligned"]


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
    task: RewardedTask = "gsm8k"
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

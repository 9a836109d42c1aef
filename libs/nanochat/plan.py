"""A recipe and the hardware as steps, tokens, FLOPs, hours and dollars: pure arithmetic, no torch.

The stages take their horizon and accumulation from here too, so a plan and the run it announces cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from nanochat import gpus
from nanochat.recipe import BaseSpec, MidSpec, Recipe, RecipeError, RlSpec, SftSpec, TaskUse
from nanochat.shape import GPTConfig, flops_per_token, num_params, scaling_params

# Rows of the hub's data (train split where it has one) and of what a generated task makes unless told otherwise.
ROWS = {
    ("smoltalk", "train"): 460_341,
    ("smoltalk", "test"): 24_229,
    ("mmlu", "auxiliary_train"): 99_842,
    ("mmlu", "test"): 14_042,
    ("arc_easy", "train"): 2_251,
    ("arc_easy", "test"): 2_376,
    ("arc_challenge", "train"): 1_119,
    ("arc_challenge", "test"): 1_172,
    ("gsm8k", "train"): 7_473,
    ("gsm8k", "test"): 1_319,
}
GENERATED = {"identity": 1000, "spelling": 1000, "counting": 1000, "sums": 1000}
TOKENS_PER_ROW = 499  # measured on the speedrun's midtraining mixture: 809 steps of 524,288 tokens for 849,648 rows


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class StagePlan(Frozen):
    """One training stage. Null means that it cannot be known before the data is there; `estimated` that it is a guess."""

    stage: str
    steps: int | None
    tokens: int | None
    flops: float | None
    accumulation: int
    warmdown_steps: int | None = None
    eval_steps: int | None = None
    estimated: bool = False
    hours: float | None = None
    usd: float | None = None


class Plan(Frozen):
    """What `POST /v1/runs/plan` answers. Hours and dollars cover the training steps alone; null on an unknown GPU."""

    recipe: str
    world_size: int
    gpu: str | None
    params: int
    flops_per_token: int
    total_flops: float
    hours: float | None
    usd: float | None
    stages: list[StagePlan]


def plan(recipe: Recipe, world_size: int = 1, gpu: str | None = None) -> Plan:
    """The whole run on `world_size` processes, each with one `gpu` (a name as in `gpus.GPUS`, or the driver's).

    Raises RecipeError, naming the field and the nearest sizes that fit, when a batch does not divide.
    """
    config = GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size)
    card = gpus.find(gpu)
    stages = [
        _priced(stage, card, world_size)
        for stage in (
            _base(recipe.base, config, world_size),
            _mid(recipe.mid, config, world_size),
            _sft(recipe.sft, config, world_size),
            *([_rl(recipe.rl, world_size)] if recipe.rl.enabled else []),
        )
    ]
    known = [s.hours for s in stages if s.hours is not None]
    prices = [s.usd for s in stages if s.usd is not None]
    return Plan(
        recipe=recipe.name,
        world_size=world_size,
        gpu=card.name if card else None,
        params=num_params(config),
        flops_per_token=flops_per_token(config),
        total_flops=sum(s.flops for s in stages if s.flops is not None),
        hours=sum(known) if known else None,
        usd=sum(prices) if prices else None,
        stages=stages,
    )


# -- what the stages use --


def base_steps(spec: BaseSpec, config: GPTConfig) -> int:
    """The horizon: `num_iterations`, else `target_flops`, else `param_data_ratio` tokens for every parameter."""
    if spec.num_iterations is not None:
        return spec.num_iterations
    if spec.target_flops is not None:
        return max(1, round(spec.target_flops / (flops_per_token(config) * spec.total_batch_size)))
    params = num_params(config) if spec.horizon_params == "all" else scaling_params(config)
    return max(1, math.floor(spec.param_data_ratio * params / spec.total_batch_size))


def accumulation(field: str, total_tokens: int, device_batch_size: int, seq_len: int, world_size: int) -> int:
    """Micro-batches a rank runs for one optimizer step of `total_tokens`. Raises RecipeError when it is not a whole number."""
    micro = device_batch_size * seq_len * world_size
    if total_tokens % micro == 0:
        return total_tokens // micro
    near = " or ".join(f"{n:,}" for n in _multiples(total_tokens, micro))
    rows, left = divmod(total_tokens, seq_len * world_size)
    also = f"; or set {field}.device_batch_size to {_divisor(rows, device_batch_size)}" if rows and not left else ""
    raise RecipeError(
        [
            (
                f"{field}.total_batch_size",
                f"{total_tokens:,} tokens are not a multiple of device_batch_size {device_batch_size} x seq_len {seq_len} x "
                f"{world_size} processes = {micro:,}; the nearest that fit: {near}{also}",
            )
        ]
    )


def example_accumulation(field: str, examples: int, device_batch_size: int, world_size: int) -> int:
    """As `accumulation`, counted in whole conversations."""
    micro = device_batch_size * world_size
    if examples % micro == 0:
        return examples // micro
    near = " or ".join(f"{n:,}" for n in _multiples(examples, micro))
    also = (
        f"; or set {field}.device_batch_size to {_divisor(examples // world_size, device_batch_size)}"
        if examples % world_size == 0
        else ""
    )
    raise RecipeError(
        [
            (
                f"{field}.examples_per_step",
                f"{examples} conversations are not a multiple of device_batch_size {device_batch_size} x {world_size} processes = "
                f"{micro}; the nearest that fit: {near}{also}",
            )
        ]
    )


def eval_steps(eval_tokens: int, device_batch_size: int, seq_len: int, world_size: int) -> int:
    """Validation batches of each rank; at least one."""
    return max(1, eval_tokens // (device_batch_size * seq_len * world_size))


def sft_steps(spec: SftSpec, rows: int) -> int:
    """Optimizer steps over `rows` conversations; an incomplete last batch is left out."""
    return spec.num_iterations or max(1, spec.num_epochs * rows // spec.examples_per_step)


# -- stages --


def _base(spec: BaseSpec, config: GPTConfig, world_size: int) -> StagePlan:
    steps = base_steps(spec, config)
    tokens = steps * spec.total_batch_size
    return StagePlan(
        stage="base_train",
        steps=steps,
        tokens=tokens,
        flops=float(tokens * flops_per_token(config)),
        accumulation=accumulation("base", spec.total_batch_size, spec.device_batch_size, config.sequence_len, world_size),
        warmdown_steps=round(spec.warmdown_ratio * steps),
        eval_steps=eval_steps(spec.eval_tokens, spec.device_batch_size, config.sequence_len, world_size),
    )


def _mid(spec: MidSpec, config: GPTConfig, world_size: int) -> StagePlan:
    rows = _rows(spec.train)
    steps = spec.num_iterations
    if steps is None and rows is not None:
        steps = max(1, round(rows * min(TOKENS_PER_ROW, config.sequence_len) / spec.total_batch_size))
    tokens = steps * spec.total_batch_size if steps is not None else None
    return StagePlan(
        stage="mid_train",
        steps=steps,
        tokens=tokens,
        flops=float(tokens * flops_per_token(config)) if tokens is not None else None,
        accumulation=accumulation("mid", spec.total_batch_size, spec.device_batch_size, config.sequence_len, world_size),
        eval_steps=eval_steps(spec.eval_tokens, spec.device_batch_size, config.sequence_len, world_size),
        estimated=spec.num_iterations is None,
    )


def _sft(spec: SftSpec, config: GPTConfig, world_size: int) -> StagePlan:
    rows = _rows(spec.train)
    steps = spec.num_iterations if rows is None else sft_steps(spec, rows)
    tokens = steps * spec.examples_per_step * min(TOKENS_PER_ROW, config.sequence_len) if steps is not None else None
    return StagePlan(
        stage="sft",
        steps=steps,
        tokens=tokens,
        flops=float(tokens * flops_per_token(config)) if tokens is not None else None,
        accumulation=example_accumulation("sft", spec.examples_per_step, spec.device_batch_size, world_size),
        eval_steps=spec.eval_batches,
        estimated=True,
    )


def _rl(spec: RlSpec, world_size: int) -> StagePlan:
    """Rollouts end when the model says so: only the steps are known."""
    if spec.examples_per_step % world_size:
        near = " or ".join(str(n) for n in _multiples(spec.examples_per_step, world_size))
        raise RecipeError(
            [
                (
                    "rl.examples_per_step",
                    f"{spec.examples_per_step} questions are not a multiple of {world_size} processes; the nearest that fit: {near}",
                )
            ]
        )
    rows = spec.size or ROWS.get((spec.task, "train"))
    steps = spec.num_iterations or (spec.num_epochs * rows // spec.examples_per_step if rows else None)
    return StagePlan(
        stage="rl", steps=steps, tokens=None, flops=None, accumulation=spec.examples_per_step // world_size, estimated=True
    )


def _priced(stage: StagePlan, card: gpus.Gpu | None, world_size: int) -> StagePlan:
    if card is None or stage.flops is None:
        return stage
    hours = stage.flops / (card.peak_flops * card.mfu * world_size) / 3600
    usd = None if card.usd_per_hour is None else hours * world_size * card.usd_per_hour
    return stage.model_copy(update={"hours": hours, "usd": usd})


def _rows(uses: Sequence[TaskUse]) -> int | None:
    """Rows of a mixture, None when one of its tasks is a file whose length is not known yet."""
    total = 0
    for use in uses:
        rows = use.size or ROWS.get((use.task, use.split)) or GENERATED.get(use.task)
        if rows is None:
            return None
        total += min(rows, use.limit or rows) * use.repeat
    return total


def _multiples(wanted: int, unit: int) -> list[int]:
    """The multiples of `unit` on both sides of `wanted`, none of them 0."""
    below = wanted // unit * unit
    return [n for n in (below, below + unit) if n]


def _divisor(rows: int, at_most: int) -> int:
    return next(n for n in range(min(rows, at_most), 0, -1) if rows % n == 0)

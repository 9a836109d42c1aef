"""Splits an optimizer step over ranks and into micro-batches that fit a GPU. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.config.recipe import BaseSpec, MidSpec, RecipeError, SftSpec
from nanochat.config.shape import GPTConfig
from nanochat.planning import memory


@dataclass(frozen=True, slots=True)
class BatchSplit:
    """How one rank runs an optimizer step: `accumulation` micro-batches of `size` rows each."""

    size: int
    accumulation: int

    def halved(self) -> BatchSplit:
        """The same rows in twice as many micro-batches of half the size. `size` must be even."""
        return BatchSplit(self.size // 2, self.accumulation * 2)


def token_batch(
    field: str, spec: BaseSpec | MidSpec, config: GPTConfig, world_size: int, memory_gib: float | None
) -> BatchSplit:
    """Split with the recipe's device batch, or the largest smaller one that divides the step and fits. Raises RecipeError."""
    micro = accumulation(field, spec.total_batch_size, spec.device_batch_size, config.sequence_len, world_size)
    return _fitting(config, spec.device_batch_size, micro, world_size, memory_gib)


def example_batch(field: str, spec: SftSpec, config: GPTConfig, world_size: int, memory_gib: float | None) -> BatchSplit:
    """As `token_batch`, for steps counted in conversations. Each counts as a full row, because it may be that long."""
    micro = example_accumulation(field, spec.examples_per_step, spec.device_batch_size, world_size)
    return _fitting(config, spec.device_batch_size, micro, world_size, memory_gib)


def accumulation(field: str, total_tokens: int, device_batch_size: int, seq_len: int, world_size: int) -> int:
    """Micro-batches of each rank in one optimizer step of `total_tokens`. Raises RecipeError if that is not a whole number."""
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
    """As `accumulation`, for a step counted in conversations."""
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


def questions_per_rank(examples: int, world_size: int) -> int:
    """Questions of each rank in one step of reinforcement learning. Raises RecipeError if that is not a whole number."""
    if examples % world_size == 0:
        return examples // world_size
    near = " or ".join(str(n) for n in _multiples(examples, world_size))
    problem = f"{examples} questions are not a multiple of {world_size} processes; the nearest that fit: {near}"
    raise RecipeError([("rl.examples_per_step", problem)])


def _fitting(config: GPTConfig, at_most: int, micro: int, world_size: int, memory_gib: float | None) -> BatchSplit:
    rows = at_most * micro
    size = memory.largest_batch(config, at_most, rows, world_size, memory_gib)
    return BatchSplit(size, rows // size)


def _multiples(wanted: int, unit: int) -> list[int]:
    """The nearest multiples of `unit` below and above `wanted`, without 0."""
    below = wanted // unit * unit
    return [n for n in (below, below + unit) if n]


def _divisor(rows: int, at_most: int) -> int:
    return next(n for n in range(min(rows, at_most), 0, -1) if rows % n == 0)

"""How one optimizer step is divided among ranks and into micro-batches that fit a GPU. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.config.recipe import BaseSpec, MidSpec, RecipeError, SftSpec
from nanochat.config.shape import GPTConfig
from nanochat.planning import memory


@dataclass(frozen=True, slots=True)
class Batch:
    """What one rank runs for an optimizer step: `size` rows at a time, `accumulation` times."""

    size: int
    accumulation: int

    def halved(self) -> Batch:
        """The same rows in twice as many goes; `size` must be even."""
        return Batch(self.size // 2, self.accumulation * 2)


def token_batch(field: str, spec: BaseSpec | MidSpec, config: GPTConfig, world_size: int, memory_gib: float | None) -> Batch:
    """The recipe's device batch, or the largest below it that divides and fits. Raises RecipeError as `accumulation` does."""
    micro = accumulation(field, spec.total_batch_size, spec.device_batch_size, config.sequence_len, world_size)
    return _fitting(config, spec.device_batch_size, micro, world_size, memory_gib)


def example_batch(field: str, spec: SftSpec, config: GPTConfig, world_size: int, memory_gib: float | None) -> Batch:
    """As `token_batch`, of whole conversations: each may be as long as a row."""
    micro = example_accumulation(field, spec.examples_per_step, spec.device_batch_size, world_size)
    return _fitting(config, spec.device_batch_size, micro, world_size, memory_gib)


def accumulation(field: str, total_tokens: int, device_batch_size: int, seq_len: int, world_size: int) -> int:
    """Micro-batches a rank runs for one optimizer step of `total_tokens`. Raises RecipeError when it is not a whole number."""
    micro = device_batch_size * seq_len * world_size
    if total_tokens % micro == 0:
        return total_tokens // micro
    near = " or ".join(f"{n:,}" for n in multiples(total_tokens, micro))
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
    near = " or ".join(f"{n:,}" for n in multiples(examples, micro))
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


def _fitting(config: GPTConfig, at_most: int, micro: int, world_size: int, memory_gib: float | None) -> Batch:
    rows = at_most * micro
    size = memory.largest_batch(config, at_most, rows, world_size, memory_gib)
    return Batch(size, rows // size)


def multiples(wanted: int, unit: int) -> list[int]:
    """The multiples of `unit` on both sides of `wanted`, none of them 0."""
    below = wanted // unit * unit
    return [n for n in (below, below + unit) if n]


def _divisor(rows: int, at_most: int) -> int:
    return next(n for n in range(min(rows, at_most), 0, -1) if rows % n == 0)

"""How much of a GPU's memory a training step takes, and the device batch that fits. Imports no torch.

A linear model: what is there whatever the batch (weights, gradients, optimizer, copies), what every token adds to it, and the
head's chunk of logits. Its one fitted constant, ACTIVATIONS, comes from d20 at 32 rows (V = 65,536, 2048 tokens a row, bf16,
compiled, fused kernels) on one H100: 44.05 GiB. Other GPUs than Hopper's, which run without those kernels, were not measured.
"""

from __future__ import annotations

from nanochat.config.shape import GPTConfig, matrix_params, num_params

GIB = 2**30
FP32, BF16 = 4, 2  # bytes

# Values of width n_embd that a token leaves in each layer for the backward pass, as bf16: two norms' outputs, queries, keys,
# values, attention's output, and relu^2 of width 4 are 10; fitted.
ACTIVATIONS = 10.05
COPIES = 6  # bytes a parameter: its bf16 copy, and the fp32 gradient on its way to the buffer it is added to
ENDS = 4  # bf16 values of width n_embd a token: embedding, final norm, the head's gradient
HEAD_LOGITS = 2**30  # logits that the head holds at once (model/loss.py), in bf16, and in place their gradient
USABLE = 0.96  # the rest is the driver's context and what the allocator cannot hand out


def fixed_gib(config: GPTConfig, world_size: int = 1) -> float:
    """GiB of one rank that no batch size changes. Each rank of several owns an equal share of the optimizer's state."""
    params, matrices = num_params(config), matrix_params(config)
    whole = (2 * FP32 + COPIES) * params
    momentum, moments = FP32 * matrices, 2 * FP32 * (params - matrices)  # Muon keeps one value a weight, AdamW two
    own_grads = FP32 * params if world_size > 1 else 0  # with one rank they are the gradients themselves
    return (whole + (momentum + moments + own_grads) / world_size) / GIB


def row_gib(config: GPTConfig) -> float:
    """GiB that every further row of `sequence_len` tokens takes."""
    return config.sequence_len * config.n_embd * BF16 * (ACTIVATIONS * config.n_layer + ENDS) / GIB


def peak_gib(config: GPTConfig, batch: int, world_size: int = 1) -> float:
    """The most that one rank's tensors take in a training step of `batch` rows at a time."""
    logits = min(HEAD_LOGITS, batch * config.sequence_len * config.vocab_size)
    return fixed_gib(config, world_size) + batch * row_gib(config) + BF16 * logits / GIB


def fits(config: GPTConfig, batch: int, world_size: int, memory_gib: float) -> bool:
    """Whether a card of `memory_gib`, as its driver counts it, holds such a step."""
    return peak_gib(config, batch, world_size) <= USABLE * memory_gib


def largest_batch(config: GPTConfig, at_most: int, rows: int, world_size: int, memory_gib: float | None) -> int:
    """The largest divisor of `rows` (those of one rank in one optimizer step) that fits, `at_most` itself where it does.

    Where not even one row fits it is the smallest, 1; of an unknown card nothing can be said, and `at_most` stands.
    """
    if memory_gib is None or fits(config, at_most, world_size, memory_gib):
        return at_most
    return next((n for n in range(at_most, 1, -1) if rows % n == 0 and fits(config, n, world_size, memory_gib)), 1)

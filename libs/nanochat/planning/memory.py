"""Predicts the GPU memory of a training step, and from it the largest device batch that fits. Imports no torch.

The model is linear. It has a fixed part (weights, gradients, optimizer state, copies), a part per token, and the head's chunk of
logits. ACTIVATIONS is its only fitted constant. It was fitted to 44.05 GiB, measured on one H100 with d20 at 32 rows (V = 65,536,
2048 tokens per row, bf16, compiled, fused kernels). GPUs other than Hopper run without those kernels and were not measured.
"""

from __future__ import annotations

from nanochat.config.shape import GPTConfig, matrix_params, num_params

GIB = 2**30
FP32, BF16 = 4, 2  # bytes

# bf16 values of width n_embd that each layer keeps per token for the backward pass. Counted, they are 10: the outputs of two norms,
# queries, keys, values, the output of attention, and relu^2 with 4 times the width. The value here is fitted.
ACTIVATIONS = 10.05
UNCOMPILED = (
    15  # the same where the model is not compiled: a d20 on one H200 took 2.6 GiB more for 8,192 positions than for 4,564
)
COPIES = 6  # bytes per parameter: a bf16 copy, and an fp32 gradient until it is added to its buffer
ENDS = 4  # bf16 values of width n_embd per token outside the layers: embedding, final norm, gradient of the head
HEAD_LOGITS = 2**30  # logits that the head holds at most (model/loss.py), in bf16; their gradient overwrites them
USABLE = 0.96  # fraction of the memory; the rest is the driver's context and the allocator's fragmentation


def fixed_gib(config: GPTConfig, world_size: int = 1) -> float:
    """GiB of one rank that do not depend on the batch. The optimizer's state is divided equally among the ranks."""
    params, matrices = num_params(config), matrix_params(config)
    whole = (2 * FP32 + COPIES) * params
    momentum, moments = FP32 * matrices, 2 * FP32 * (params - matrices)  # Muon keeps one value per weight, AdamW two
    own_grads = FP32 * params if world_size > 1 else 0  # a single rank needs no separate buffer
    return (whole + (momentum + moments + own_grads) / world_size) / GIB


def row_gib(config: GPTConfig) -> float:
    """GiB per row of `sequence_len` tokens."""
    return config.sequence_len * config.n_embd * BF16 * (ACTIVATIONS * config.n_layer + ENDS) / GIB


def peak_gib(config: GPTConfig, batch: int, world_size: int = 1) -> float:
    """Peak GiB of one rank's tensors in a training step with `batch` rows at a time."""
    logits = min(HEAD_LOGITS, batch * config.sequence_len * config.vocab_size)
    return fixed_gib(config, world_size) + batch * row_gib(config) + BF16 * logits / GIB


def fits(config: GPTConfig, batch: int, world_size: int, memory_gib: float) -> bool:
    """Whether such a step fits a GPU of `memory_gib`, as reported by its driver."""
    return peak_gib(config, batch, world_size) <= USABLE * memory_gib


def largest_batch(config: GPTConfig, at_most: int, rows: int, world_size: int, memory_gib: float | None) -> int:
    """`at_most` if it fits, else the largest smaller divisor of `rows` that does. `rows` is one rank's in one optimizer step.

    Returns 1 if not even one row fits. Returns `at_most` if the GPU's memory is unknown.
    """
    if memory_gib is None or fits(config, at_most, world_size, memory_gib):
        return at_most
    return next((n for n in range(at_most, 1, -1) if rows % n == 0 and fits(config, n, world_size, memory_gib)), 1)


def free_gib(config: GPTConfig, world_size: int, memory_gib: float) -> float:
    """GiB that are left for the batch on a GPU of `memory_gib`."""
    return USABLE * memory_gib - fixed_gib(config, world_size)


def positions(config: GPTConfig, rows: int, gib: float | None) -> int:
    """How many positions an uncompiled model takes at a time: those of `rows` rows of its context, or fewer if no more fit into `gib`."""
    wanted = rows * config.sequence_len
    if gib is None:
        return wanted
    each = config.n_embd * BF16 * (UNCOMPILED * config.n_layer + ENDS) / GIB
    logits = BF16 * min(HEAD_LOGITS, wanted * config.vocab_size) / GIB
    return max(1, min(wanted, int((gib - logits) / each)))

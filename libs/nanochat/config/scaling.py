"""Settings tuned at one size carried to another: batch, learning rate and weight decay. Imports no torch.

The reference is a d12 model of the same recipe at 524,288 tokens a step, where nanochat's sweeps were done (log of 2026-02-05
and 2026-02-06).
"""

from __future__ import annotations

import math

from nanochat.config.model_spec import ModelSpec
from nanochat.config.shape import GPTConfig, scaling_params

REFERENCE_DEPTH = 12
REFERENCE_BATCH = 2**19
BATCH_EXPONENT = 0.383  # of the best batch over the horizon: Bergsma et al. 2025, "Power Lines"


def batch_size(model: ModelSpec, vocab_size: int) -> int:
    """Tokens a step, a power of two; the horizon grows as the scaling parameters do."""
    return int(2 ** round(math.log2(REFERENCE_BATCH * _size(model, vocab_size) ** BATCH_EXPONENT)))


def lr_scale(total_batch_size: int) -> float:
    """A batch n times larger has gradients of 1/sqrt(n) the noise, and can take sqrt(n) longer steps."""
    return math.sqrt(total_batch_size / REFERENCE_BATCH)


def decay_scale(total_batch_size: int, model: ModelSpec, vocab_size: int) -> float:
    """Keeps the share of the training over which weights forget (Wang and Aitchison 2024), with learning rates scaled as above."""
    return math.sqrt(total_batch_size / REFERENCE_BATCH) / _size(model, vocab_size)


def _size(model: ModelSpec, vocab_size: int) -> float:
    """Scaling parameters over the reference's: at one ratio of tokens to parameters, horizon over the reference's too."""
    reference = model.model_copy(update={"depth": REFERENCE_DEPTH})
    return scaling_params(GPTConfig.of(model, vocab_size)) / scaling_params(GPTConfig.of(reference, vocab_size))

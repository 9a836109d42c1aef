"""Rules that carry batch size, learning rate and weight decay from the model they were tuned on to another. Imports no torch.

They were tuned on a d12 model of the same recipe at 524,288 tokens per step: nanochat's sweeps, log entries of 2026-02-05 and
2026-02-06.
"""

from __future__ import annotations

import math

from nanochat.config.model_spec import ModelSpec
from nanochat.config.shape import GPTConfig, scaling_params

TUNED_DEPTH = 12
TUNED_BATCH = 2**19
BATCH_EXPONENT = 0.383  # the best batch grows as horizon^0.383: Bergsma et al. 2025, "Power Lines"


def batch_size(model: ModelSpec, vocab_size: int) -> int:
    """Best tokens per step, rounded to a power of two. The horizon is taken as proportional to the scaling parameters."""
    return int(2 ** round(math.log2(TUNED_BATCH * _size(model, vocab_size) ** BATCH_EXPONENT)))


def lr_scale(total_batch_size: int) -> float:
    """Factor on learning rates. A batch n times larger has 1/sqrt(n) of the gradient noise, so steps can be sqrt(n) longer."""
    return math.sqrt(total_batch_size / TUNED_BATCH)


def decay_scale(total_batch_size: int, model: ModelSpec, vocab_size: int) -> float:
    """Factor on weight decay, for learning rates scaled by `lr_scale`.

    Weights then forget over the same fraction of the run at every size (Wang and Aitchison 2024).
    """
    return math.sqrt(total_batch_size / TUNED_BATCH) / _size(model, vocab_size)


def _size(model: ModelSpec, vocab_size: int) -> float:
    """Scaling parameters relative to d12; at a fixed ratio of tokens to parameters, the relative horizon as well."""
    tuned = model.model_copy(update={"depth": TUNED_DEPTH})
    return scaling_params(GPTConfig.of(model, vocab_size)) / scaling_params(GPTConfig.of(tuned, vocab_size))

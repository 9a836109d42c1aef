"""The shape of the model and the arithmetic that follows from it alone. Imports no torch, so that the API can plan with it."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.recipe import ModelSpec


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Everything that decides the parameters' shapes; it travels in each checkpoint's `meta.json`."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def of(cls, spec: ModelSpec, vocab_size: int) -> GPTConfig:
        """The shape a recipe's `depth` dial stands for: as many key-value heads as heads."""
        return cls(spec.seq_len, vocab_size, spec.depth, spec.n_head, spec.n_head, spec.n_embd)


def matrix_params(config: GPTConfig) -> int:
    """Parameters of the blocks' matrices: q, k, v, out and the two of the MLP (C to 4C and back)."""
    width, kv_width = config.n_embd, config.n_kv_head * config.head_dim
    return config.n_layer * (2 * width * width + 2 * width * kv_width + 8 * width * width)


def num_params(config: GPTConfig) -> int:
    """All parameters: blocks, embedding and the untied head."""
    return matrix_params(config) + 2 * config.vocab_size * config.n_embd


def flops_per_token(config: GPTConfig) -> int:
    """FLOPs of forward and backward for one token: 6 for each weight of a matrix product, 12 x heads x head_dim x T for
    each layer's attention. The embedding is a look-up and counts nothing; causality is not discounted (PaLM, appendix B).
    """
    products = matrix_params(config) + config.vocab_size * config.n_embd
    return 6 * products + 12 * config.n_layer * config.n_embd * config.sequence_len

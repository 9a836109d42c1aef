"""The shape of the model, and its parameter and FLOP counts. Imports no torch, so that the API can plan with it."""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.config.model_spec import ModelSpec

GATE_CHANNELS = 12  # first channels of a layer's input, from which it computes the gates of its value embedding
SMEAR_CHANNELS = 24  # first channels of a token's embedding, from which the gate of `smear` is computed
WINDOW_UNIT = 128  # windows are rounded up to a multiple of this many tokens


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Everything that determines the model's function and the shapes of its parameters.

    It is saved in the `meta.json` of each checkpoint. Checkpoints of the speedrun's model lack the fields that have a default
    here; the defaults are that model's values.
    """

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    residual_scalars: bool = False
    value_embeds: bool = False
    window_pattern: str = "L"
    window: int = 0  # positions that an S layer attends to, including the token's own
    qk_scale: float = 1.0
    rope_base: float = 10_000.0
    smear: bool = False
    backout: bool = False

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @classmethod
    def of(cls, spec: ModelSpec, vocab_size: int) -> GPTConfig:
        """The shape that a recipe describes, with as many key-value heads as query heads."""
        short = "S" in spec.window_pattern
        return cls(
            spec.seq_len,
            vocab_size,
            spec.depth,
            spec.n_head,
            spec.n_head,
            spec.n_embd,
            residual_scalars=spec.residual_scalars,
            value_embeds=spec.value_embeds,
            window_pattern=spec.window_pattern,
            window=-int(-spec.seq_len * spec.window_ratio // WINDOW_UNIT) * WINDOW_UNIT if short else 0,
            qk_scale=spec.qk_scale,
            rope_base=spec.rope_base,
            smear=spec.smear,
            backout=spec.backout,
        )

    def window_of(self, layer: int) -> int | None:
        """Positions that a layer attends to; None means all."""
        short = self.window_pattern[layer % len(self.window_pattern)] == "S" and layer != self.n_layer - 1
        return self.window if short else None

    def has_value_embed(self, layer: int) -> bool:
        return self.value_embeds and layer % 2 == (self.n_layer - 1) % 2

    @property
    def value_layers(self) -> int:
        return sum(self.has_value_embed(layer) for layer in range(self.n_layer))


# Field of GPTConfig -> that of transformers. The other fields have no other name there.
HF_NAMES = {
    "sequence_len": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "n_embd": "hidden_size",
}


def matrix_params(config: GPTConfig) -> int:
    """Parameters in the blocks' matrices: q, k, v, out, both MLP matrices (C to 4C and back), gates of value embeddings."""
    width, kv_width = config.n_embd, config.n_kv_head * config.head_dim
    gates = config.value_layers * config.n_kv_head * min(GATE_CHANNELS, width)
    return config.n_layer * (2 * width * width + 2 * width * kv_width + 8 * width * width) + gates


def scaling_params(config: GPTConfig) -> int:
    """Parameters that take part in matrix products: the blocks' matrices and the head. Scaling laws are clean in them."""
    return matrix_params(config) + config.vocab_size * config.n_embd


def num_params(config: GPTConfig) -> int:
    """All parameters: blocks, embedding, the untied head, and those that switches of the recipe add."""
    values = config.value_layers * config.vocab_size * config.n_kv_head * config.head_dim
    scalars = 2 * config.n_layer * config.residual_scalars + config.smear + config.backout
    return scaling_params(config) + config.vocab_size * config.n_embd + values + scalars + _smear_gate(config)


def flops_per_token(config: GPTConfig) -> int:
    """FLOPs of forward and backward for one token, counted as in PaLM, appendix B.

    6 per weight of a matrix product, plus 12 x heads x head_dim x T per layer for attention, where T is the context or the
    layer's window if that is shorter. Embedding look-ups count 0. The causal mask is not discounted.
    """
    seen = sum(min(config.window_of(layer) or config.sequence_len, config.sequence_len) for layer in range(config.n_layer))
    return 6 * (scaling_params(config) + _smear_gate(config)) + 12 * config.n_embd * seen


def _smear_gate(config: GPTConfig) -> int:
    return min(SMEAR_CHANNELS, config.n_embd) if config.smear else 0

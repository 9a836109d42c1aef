"""The configuration of a nanochat model whose recipe has more than the speedrun's architecture."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class NanochatModernConfig(PretrainedConfig):
    """Fields without a comment mean what they mean in other models of transformers.

    - `residual_scalars`: each layer reads r x residual stream + s x token embedding.
    - `value_embeds`: every other layer, the last one included, adds a gated embedding of the token to its values.
    - `window_pattern`, `window`: an S layer attends to the latest `window` positions. The pattern repeats over the layers; the
      last layer attends to all positions.
    - `qk_scale`: factor on queries and on keys after their norm. `rope_base`: base of the rotary frequencies.
    - `smear`: adds a gated part of the previous token's embedding. `backout`: subtracts a part of the middle layer's output.
    """

    model_type = "nanochat_modern"
    keys_to_ignore_at_inference = ("past_key_values", "cache")

    def __init__(
        self,
        vocab_size: int = 32_768,
        hidden_size: int = 1280,
        num_hidden_layers: int = 20,
        num_attention_heads: int = 10,
        num_key_value_heads: int = 10,
        max_position_embeddings: int = 2048,
        residual_scalars: bool = False,
        value_embeds: bool = False,
        window_pattern: str = "L",
        window: int = 0,
        qk_scale: float = 1.0,
        rope_base: float = 10_000.0,
        smear: bool = False,
        backout: bool = False,
        **kwargs: Any,
    ):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads, self.num_key_value_heads = num_attention_heads, num_key_value_heads
        self.max_position_embeddings = max_position_embeddings
        self.residual_scalars, self.value_embeds = residual_scalars, value_embeds
        self.window_pattern, self.window = window_pattern, window
        self.qk_scale, self.rope_base = qk_scale, rope_base
        self.smear, self.backout = smear, backout
        self.use_cache = kwargs.pop("use_cache", True)
        super().__init__(**{"tie_word_embeddings": False, **kwargs})

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def window_of(self, layer: int) -> int | None:
        """Positions that a layer attends to; None means all."""
        short = self.window_pattern[layer % len(self.window_pattern)] == "S" and layer != self.num_hidden_layers - 1
        return self.window if short else None

    def has_value_embed(self, layer: int) -> bool:
        return self.value_embeds and layer % 2 == (self.num_hidden_layers - 1) % 2

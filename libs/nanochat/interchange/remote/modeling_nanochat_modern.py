"""A nanochat model with all switches of its recipes, for transformers. The names of its tensors are those of nanochat's checkpoints.

A pre-norm decoder: rotary positions, normed queries and keys, relu^2, no biases, norms without gain, and an untied head with a
soft cap. It generates with transformers' `DynamicCache`, also in left-padded batches and with beams.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_nanochat_modern import NanochatModernConfig

EPS = torch.finfo(torch.float32).eps
SOFTCAP = 15.0
GATE_CHANNELS, GATE_RANGE = 12, 3.0  # of a value embedding's gate
SMEAR_CHANNELS = 24
# What the cache is called in this version of transformers: `cache` since 5.24, `past_key_values` before.
CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),), eps=EPS).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, T, H, D) rotated by minus the angles of its positions, channel j with j + D/2; cos and sin (B, T, 1, D/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


class Attention(nn.Module):
    def __init__(self, config: NanochatModernConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.scale = config.qk_scale**2 / math.sqrt(self.dim)
        width, kv_width = config.hidden_size, self.kv_heads * self.dim
        self.q = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k = nn.Linear(width, kv_width, bias=False)
        self.v = nn.Linear(width, kv_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        if config.has_value_embed(layer):
            self.value_gate = nn.Linear(min(GATE_CHANNELS, width), self.kv_heads, bias=False)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        seen: Tensor,
        cache: Any,
        value_embed: Tensor | None,
        extra: Tensor | None,
    ) -> Tensor:
        """x (B, T, C) to (B, T, C).

        `seen` (B or 1, 1, T, Tk) is True where a query may attend to a key. `extra` (B, T, C) is stored beside the values.
        """
        batch, length, _ = x.shape
        q = norm(rotate(self.q(x).view(batch, length, self.heads, self.dim), *rotary)).transpose(1, 2)
        k = norm(rotate(self.k(x).view(batch, length, self.kv_heads, self.dim), *rotary)).transpose(1, 2)
        v = self.v(x).view(batch, length, self.kv_heads, self.dim)
        if value_embed is not None:
            gate = GATE_RANGE * torch.sigmoid(self.value_gate(x[..., : self.value_gate.in_features]))
            v = v + gate.unsqueeze(-1) * value_embed.view_as(v)
        if cache is not None:
            stored = v if extra is None else torch.cat((v, extra.view(batch, length, self.kv_heads, -1)), dim=-1)
            k, stored = cache.update(k, stored.transpose(1, 2), self.layer)
            v = stored[..., : self.dim]
        else:
            v = v.transpose(1, 2)
        if self.heads != self.kv_heads:
            k, v = (part.repeat_interleave(self.heads // self.kv_heads, dim=1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=self.scale)
        mixed: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return mixed


class MLP(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.relu(self.up(x)).square())
        return y


class Block(nn.Module):
    def __init__(self, config: NanochatModernConfig, layer: int):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config.hidden_size)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        x = x + self.attn(norm(x), *context)
        y: Tensor = x + self.mlp(norm(x))
        return y


class Smear(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gate = nn.Linear(min(SMEAR_CHANNELS, width), 1, bias=False)
        self.amount = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """x and the embeddings of the tokens before, both (B, T, C)."""
        return x + self.amount * torch.sigmoid(self.gate(x[..., : self.gate.in_features])) * before


class NanochatModernForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = NanochatModernConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012
    # Rounding one of these scalars to bf16 would rescale a whole layer.
    _keep_in_fp32_modules_strict = ["resid", "x0", "amount", "backout"]  # noqa: RUF012

    def __init__(self, config: NanochatModernConfig):
        super().__init__(config)
        width, layers = config.hidden_size, range(config.num_hidden_layers)
        kv_width = config.num_key_value_heads * config.head_dim
        self.embed = nn.Embedding(config.vocab_size, width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in layers)
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.value_embeds = nn.ModuleDict(
            {str(layer): nn.Embedding(config.vocab_size, kv_width) for layer in layers if config.has_value_embed(layer)}
        )
        if config.residual_scalars:
            self.resid = nn.Parameter(torch.ones(config.num_hidden_layers))
            self.x0 = nn.Parameter(torch.zeros(config.num_hidden_layers))
        if config.smear:
            self.smear = Smear(width)
        if config.backout:
            self.backout = nn.Parameter(torch.zeros(()))
        self.post_init()

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrices: the scalars, which come first in the list of parameters, are always fp32."""
        return self.lm_head.weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) in fp32 of input_ids (B, T); with `labels` also the loss of each next token, -100 is ignored.

        `attention_mask` (B, cached + T) is 0 for padding. Raises ValueError for a cache that is not a `DynamicCache`.
        """
        held = cache if cache is not None else past_key_values
        if held is None and (self.config.use_cache if use_cache is None else use_cache) and not self.training:
            held = DynamicCache()
        if held is not None and not isinstance(held, DynamicCache):
            raise ValueError(f"this model needs a DynamicCache, not a {type(held).__name__}: leave cache_implementation out")
        past, length = (0 if held is None else held.get_seq_length()), input_ids.size(1)
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=input_ids.device)[None]
        padding = None if attention_mask is None else attention_mask.bool()
        hidden = self._hidden(input_ids, position_ids, padding, held, past)
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        logits = SOFTCAP * torch.tanh(logits.float() / SOFTCAP)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: held})

    def _hidden(self, ids: Tensor, positions: Tensor, padding: Tensor | None, cache: Any, past: int) -> Tensor:
        config = self.config
        x = norm(self.embed(ids))
        rotary = self._rotary(positions, x.dtype)
        windows = [config.window_of(layer) for layer in range(config.num_hidden_layers)]
        masks = {window: self._seen(ids, past, padding, window) for window in set(windows)}
        extra = None
        if config.smear:
            # Padding has no embedding: the first token of a padded row has no token before it.
            extra = x if padding is None else x * padding[:, past:, None]
            x = self.smear(x, self._before(extra, cache, past))
        start = middle = x
        for layer, block in enumerate(self.blocks):
            if config.residual_scalars:
                x = self.resid[layer] * x + self.x0[layer] * start
            value = self.value_embeds[str(layer)](ids) if config.has_value_embed(layer) else None
            x = block(x, rotary, masks[windows[layer]], cache, value, extra if layer == 0 else None)
            if layer == config.num_hidden_layers // 2:
                middle = x
        if config.backout:
            x = x - self.backout * middle
        return norm(x)

    def _rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin (B, T, 1, D/2) of positions (B, T), computed in fp32."""
        channel = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32, device=positions.device)
        angle = positions[..., None].float() * self.config.rope_base ** (-channel / self.config.head_dim)
        return angle.cos()[:, :, None].to(dtype), angle.sin()[:, :, None].to(dtype)

    def _seen(self, ids: Tensor, past: int, padding: Tensor | None, window: int | None) -> Tensor:
        """True where a query may attend to a key, (B or 1, 1, T, past + T). Every query sees itself, even padding."""
        keys = torch.arange(past + ids.size(1), device=ids.device)
        queries = keys[past:, None]
        seen = keys <= queries
        if window is not None:
            seen = seen & (keys > queries - window)
        if padding is None:
            return seen[None, None]
        return (seen & padding[:, None, None, :]) | (keys == queries)

    def _before(self, x: Tensor, cache: Any, past: int) -> Tensor:
        """x (B, T, C) shifted by one position. The embedding before the first position is stored beside layer 0's values."""
        if past == 0:
            return F.pad(x[:, :-1], (0, 0, 1, 0))
        last = cache.layers[0].values[:, :, -1, self.config.head_dim :].flatten(1)  # (B, C)
        return torch.cat((last[:, None].to(x), x[:, :-1]), dim=1)

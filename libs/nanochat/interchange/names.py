"""How tensors are named elsewhere, and that a set of tensors is exactly what a configuration asks for."""

from __future__ import annotations

import re

import torch

from nanochat.config.shape import GPTConfig
from nanochat.interchange.folder import Refused
from nanochat.interchange.tensors import Lazy, Tensors
from nanochat.model import GPT

# Ours -> that of `NanoChatForCausalLM`, for a model without switches. {} is the number of the layer.
NATIVE = {
    "embed.weight": "model.embed_tokens.weight",
    "blocks.{}.attn.q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attn.k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attn.v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.{}.attn.out.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.mlp.up.weight": "model.layers.{}.mlp.fc1.weight",
    "blocks.{}.mlp.down.weight": "model.layers.{}.mlp.fc2.weight",
    "lm_head.weight": "lm_head.weight",
}
# Other spellings of native names: without the prefix, and those of nanochat's own checkpoints.
SPELLINGS = {
    "embed.weight": ("embed_tokens.weight", "transformer.wte.weight"),
    "blocks.{}.attn.q.weight": ("layers.{}.self_attn.q_proj.weight", "transformer.h.{}.attn.c_q.weight"),
    "blocks.{}.attn.k.weight": ("layers.{}.self_attn.k_proj.weight", "transformer.h.{}.attn.c_k.weight"),
    "blocks.{}.attn.v.weight": ("layers.{}.self_attn.v_proj.weight", "transformer.h.{}.attn.c_v.weight"),
    "blocks.{}.attn.out.weight": ("layers.{}.self_attn.o_proj.weight", "transformer.h.{}.attn.c_proj.weight"),
    "blocks.{}.mlp.up.weight": ("layers.{}.mlp.fc1.weight", "transformer.h.{}.mlp.c_fc.weight"),
    "blocks.{}.mlp.down.weight": ("layers.{}.mlp.fc2.weight", "transformer.h.{}.mlp.c_proj.weight"),
}
FUSED = re.compile(r"(?:model\.)?layers\.(\d+)\.self_attn\.qkv_proj\.weight")  # the rows of q, of k and of v
LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def to_native(tensors: Tensors) -> dict[str, Lazy]:
    return {_renamed(name, NATIVE): tensor for name, tensor in tensors.items()}


def from_native(tensors: Tensors, config: GPTConfig) -> dict[str, Lazy]:
    """Our names for the tensors of a `NanoChatForCausalLM`. A name that is not known stays."""
    ours = {theirs: name for name, theirs in NATIVE.items()}
    ours |= {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}
    width, kv_width = config.n_embd, config.n_kv_head * config.head_dim
    found: dict[str, Lazy] = {}
    for name, tensor in tensors.items():
        fused = FUSED.fullmatch(name)
        if fused and tensor.shape == (width + 2 * kv_width, width):
            ends = {"q": (0, width), "k": (width, width + kv_width), "v": (width + kv_width, width + 2 * kv_width)}
            found |= {f"blocks.{fused[1]}.attn.{part}.weight": tensor.rows(*rows) for part, rows in ends.items()}
        else:
            found[_renamed(name, ours)] = tensor
    return found


def check(tensors: Tensors, config: GPTConfig, where: str) -> None:
    """Raises Refused unless names and shapes are exactly those of `config`. `where` names the folder and its configuration."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in GPT(config).state_dict().items()}
    for name in expected:
        if name not in tensors:
            raise Refused(f"{where}: the tensor {_both(name)} is missing; expected shape {list(expected[name])}. {_todo(name)}")
    for name, tensor in tensors.items():
        if name not in expected:
            raise Refused(
                f"{tensor.origin}: the tensor {name!r} of shape {list(tensor.shape)} is in no model of this configuration."
                " Check that config.json belongs to these weights"
            )
        if tensor.shape != expected[name]:
            raise Refused(
                f"{tensor.origin}: the tensor {_both(name)} has the shape {list(tensor.shape)}; the configuration asks for"
                f" {list(expected[name])}. Check that config.json belongs to these weights"
            )


def _renamed(name: str, table: dict[str, str]) -> str:
    number = LAYER.search(name)
    new = table.get(LAYER.sub("{}", name, count=1), name)
    return new.format(number[0]) if number and new != name else new


def _both(name: str) -> str:
    theirs = _renamed(name, NATIVE)
    return repr(name) if theirs == name else f"{name!r} ({theirs!r} in transformers)"


def _todo(name: str) -> str:
    if name == "lm_head.weight":
        return "This may be a base model without a head: save the NanoChatForCausalLM, not its .model"
    return "Check that all shards are there and that config.json belongs to these weights"

"""Weight initialisation of a fresh model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nanochat.config.model_spec import InitSpec
from nanochat.model.gpt import GPT

ZERO_INIT = ("attn.out", "mlp.down", "attn.value_gate", "smear.gate")
BACKOUT = 0.2  # nanochat's log of 2026-03-14


@torch.no_grad()
def init_weights(model: GPT, spec: InitSpec | None = None) -> None:
    """Initialise every parameter in place, and the rotary tables. `spec` overrides the defaults below.

    Embedding: Normal(0, 1). Linears: Normal(0, s) with s = min(1, sqrt(out/in)) / sqrt(in) (spectral scaling, Yang et al.
    2023). Zero: the head and the last matrix of each attention and MLP, so that every logit and every residual update starts
    at 0 and the first loss is ln(vocab_size); and the gates' weights, so that every gate starts half open. Value embeddings:
    uniform, with standard deviation 1/sqrt(C), like the matrices that compute the values. Random numbers come from torch's
    global generator, which the caller seeds.
    """
    spec = spec or InitSpec()
    model.rotary.reset()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            if name.startswith("value_embeds"):
                _uniform(module.weight, 1 / math.sqrt(model.config.n_embd))
            else:
                nn.init.normal_(module.weight, std=spec.embedding_std)
        elif isinstance(module, nn.Linear):
            _linear(name, module.weight, spec)
    layers = model.config.n_layer
    if model.config.residual_scalars:
        model.resid.copy_(torch.linspace(*spec.resid, layers))
        model.x0.copy_(torch.linspace(*spec.x0, layers))
    if model.config.smear:
        model.smear.amount.zero_()
    if model.config.backout:
        model.backout.fill_(BACKOUT)


def _linear(name: str, weight: Tensor, spec: InitSpec) -> None:
    fan_out, fan_in = weight.shape
    std = min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in) * (spec.mlp_scale if name.endswith("mlp.up") else 1.0)
    if name == "lm_head":
        nn.init.normal_(weight, std=spec.head_std or std)
    elif spec.matrices == "uniform":
        _uniform(weight, std)
    else:
        nn.init.normal_(weight, std=std)
    if name.endswith(ZERO_INIT) or (name == "lm_head" and not spec.head_std):
        nn.init.zeros_(weight)


def _uniform(weight: Tensor, std: float) -> None:
    bound = math.sqrt(3) * std
    nn.init.uniform_(weight, -bound, bound)

"""The weights of a fresh model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from nanochat.model.gpt import GPT

ZERO = ("lm_head", "attn.out", "mlp.down")


@torch.no_grad()
def init_weights(model: GPT) -> None:
    """Normal(0, 1) embedding; linears Normal(0, s) with s = min(1, sqrt(out/in)) / sqrt(in) (Yang et al. 2023, spectral
    scaling); then zero for the head and for what each block adds, so that every logit and every residual update starts at
    0 and the first loss is ln(vocab_size).
    """
    model.rotary.reset()
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)
        elif isinstance(module, nn.Linear):
            fan_out, fan_in = module.weight.shape
            nn.init.normal_(module.weight, std=min(1.0, math.sqrt(fan_out / fan_in)) / math.sqrt(fan_in))
            if name.endswith(ZERO):
                nn.init.zeros_(module.weight)

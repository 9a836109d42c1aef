"""The loop that takes one item at a time: a forward pass for each item with the logits of every position, one answer after another.

It is written for this comparison, in plain PyTorch on the same weights, and does what nanochat's evaluations do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine.scorer import ScoredSequence
from nanochat.model import GPT


@torch.no_grad()
def score(model: GPT, spans: list[ScoredSequence]) -> tuple[list[float], bool]:
    """The mean loss of each span of an item, and whether the first is what the model would say."""
    longest = max(len(span.ids) for span in spans)
    ids = torch.tensor([span.ids + [0] * (longest - len(span.ids)) for span in spans], device=model.get_device())
    logits = model(ids)  # (B, T, V) fp32
    targets = torch.roll(ids, -1, dims=1)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(ids)
    likeliest = logits.argmax(dim=-1)
    means = [losses[row, span.start - 1 : span.end - 1].mean().item() for row, span in enumerate(spans)]
    first = slice(spans[0].start - 1, spans[0].end - 1)
    return means, bool((likeliest[0, first] == targets[0, first]).all())


@torch.no_grad()
def choose(model: GPT, prompt: list[int], letters: list[int]) -> int:
    """The number of the likeliest letter after a prompt."""
    logits = model(torch.tensor([prompt], device=model.get_device()))[0, -1]
    return int(logits[torch.tensor(letters, device=logits.device)].argmax())


@torch.no_grad()
def answer(model: GPT, prompt: list[int], tokens: int) -> list[int]:
    """The likeliest tokens after a prompt, one pass each, over a contiguous cache."""
    cache = Contiguous(model, len(prompt) + tokens)
    made: list[int] = []
    ids = torch.tensor([prompt], device=model.get_device())
    for _ in range(tokens):
        token = model(ids, cache=cache)[:, -1].argmax(dim=-1)
        cache.pos += ids.size(1)
        cache.last = ids[:, -1:]
        ids = token[:, None]
        made.append(int(token))
    return made


class Contiguous:
    """Keys and values of one row, side by side."""

    def __init__(self, model: GPT, length: int):
        config, weight = model.config, model.embed.weight
        shape = (config.n_layer, 1, config.n_kv_head, length, config.head_dim)
        self.keys, self.values = (torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2))
        self.pos: int | Tensor = 0
        self.last: Tensor | None = None
        self._model = model

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(self.pos, int)
        end = self.pos + k.size(2)
        self.keys[layer, :, :, self.pos : end] = k
        self.values[layer, :, :, self.pos : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def before(self, x: Tensor) -> Tensor:
        first = torch.zeros_like(x[:, :1]) if self.last is None else self._model.embedded(self.last).to(x.dtype)
        return torch.cat((first, x[:, :-1]), dim=1)

"""Log probabilities of a given text, as evaluations by likelihood need them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nanochat.engine.request import Logprobs
from nanochat.model import GPT
from nanochat.model.loss import softcap

POSITIONS = 256  # whose logits are in memory at once: 64 MiB in fp32 with a vocabulary of 65,536


@torch.no_grad()
def prompt_logprobs(model: GPT, prompt: Sequence[int], top: int) -> list[Logprobs]:
    """For each token after the first: its log probability after those before it, and those of the `top` most likely tokens.

    One pass through the model, without the KV cache: a remembered prefix has no logits.
    """
    ids = torch.tensor([list(prompt)], device=model.get_device())
    states, targets = model.hidden(ids[:, :-1])[0], ids[0, 1:]
    found: list[Logprobs] = []
    for first in range(0, len(targets), POSITIONS):
        chunk = slice(first, first + POSITIONS)
        logs = softcap(model.lm_head(states[chunk])).log_softmax(dim=-1)
        own = logs.gather(1, targets[chunk, None])[:, 0].tolist()
        best = logs.topk(top, dim=-1)
        for logprob, tokens, values in zip(own, best.indices.tolist(), best.values.tolist(), strict=True):
            found.append(Logprobs(logprob, dict(zip(tokens, values, strict=True))))
    return found

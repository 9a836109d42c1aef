"""Groups of sequences with beginnings in common, and how far scores in a narrow type are from those in fp32."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from nanochat.engine.runner import narrow
from nanochat.engine.scorer import ScoredSequence, Scorer
from nanochat.model import GPT

WORSE = 1.5  # the scorer's error in terms of that of a plain pass over each sequence, both in the same type


def groups(count: int, longest: int) -> list[list[ScoredSequence]]:
    """More tokens than a pass has, beginnings that end within a block, and spans of many lengths."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(400, (count,), generator=generator).tolist()

    found = []
    for number in range(count):
        beginning = tokens(3 + 37 * number % longest)
        ends = [tokens(1 + (number + i) % 5) for i in range(1 + number % 4)]
        found.append([ScoredSequence([*beginning, *end], len(beginning), len(beginning) + len(end)) for end in ends])
    return found


def losses(scorer: Scorer, asked: Sequence[Sequence[ScoredSequence]]) -> torch.Tensor:
    return torch.tensor([loss for scores in scorer.spans(asked) for loss, _ in scores], dtype=torch.float64)


@torch.no_grad()
def plain(model: GPT, asked: Sequence[Sequence[ScoredSequence]]) -> torch.Tensor:
    """The mean loss of each span, by one pass over each whole sequence."""
    found = []
    for sequence in [sequence for group in asked for sequence in group]:
        span = slice(sequence.start - 1, sequence.end - 1)
        logits = model(torch.tensor([sequence.ids], device=model.get_device()))[0, span].float()
        wanted = torch.tensor(sequence.ids[sequence.start : sequence.end], device=logits.device)
        found.append(F.cross_entropy(logits, wanted).item())
    return torch.tensor(found, dtype=torch.float64)


def assert_no_worse_than_a_plain_pass(model: GPT, dtype: torch.dtype, asked: Sequence[Sequence[ScoredSequence]]) -> None:
    """Root mean square and largest error of the scorer and of the plain model in `dtype`, both against the plain model in fp32."""
    truth = plain(model, asked)
    ours = losses(Scorer(model, dtype=dtype), asked) - truth
    theirs = plain(narrow(copy.deepcopy(model), dtype), asked) - truth
    assert theirs.square().mean() > 0, "nothing was rounded"
    for size in (lambda error: error.square().mean().sqrt(), lambda error: error.abs().max()):
        assert size(ours) <= WORSE * size(theirs), (float(size(ours)), float(size(theirs)))

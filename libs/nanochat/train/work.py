"""Where the gradients of an optimizer step come from: micro-batches of a loader. Reinforcement learning has its own source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from nanochat.contract.contract import StageError
from nanochat.data import packing
from nanochat.distributed import Ranks
from nanochat.train.feed import AHEAD, Feed, Loader

Values = dict[str, float]
# What a loader's state counts of the data that was not, or not as a whole, learnt from. It becomes part of the stage's results.
REPORTED = ("cut_tokens", "skipped_conversations", "padding_tokens", "trained_conversations")
Forward = Callable[..., Tensor]
Batch = tuple[Tensor, Tensor]  # inputs and targets


@dataclass(frozen=True, slots=True)
class Gradients:
    """One rank's part of a step. Its gradients are in the parameters.

    With `targets`, gradient and `loss` (0-D) are sums over that many targets, otherwise means. `tokens` counts for the speed. `sums`
    are added up over the ranks.
    """

    loss: Tensor
    tokens: int
    targets: int | None = None
    sums: Values = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """The loss of the step is the sum of all ranks' `loss` divided by the sum of their weights."""
        return 1 if self.targets is None else self.targets


class Impossible(StageError):
    """The next step cannot be taken. Every rank raises it before anything has changed, so what was trained can be saved."""


class Work(Protocol):
    """What the loop asks of a source of gradients.

    `state` is its position after the steps so far, as JSON; `progress` the passes over the data that it has made; `waited` the seconds
    for which it has held up the training.
    """

    @property
    def state(self) -> dict[str, Any]: ...
    @property
    def progress(self) -> float: ...
    @property
    def waited(self) -> float: ...

    def gradients(self, step: int) -> Gradients:
        """Add the gradients of a step to those of the parameters, which are zero. Raises Impossible."""
        ...

    def figures(self, sums: Values) -> dict[str, float | None]:
        """Metrics of the step whose `sums` over all ranks these are."""
        ...

    def totals(self) -> Values:
        """Figures for the results that are added up over the ranks."""
        ...

    def close(self) -> None: ...


class MicroBatches:
    """A step of `accumulation` micro-batches.

    `by_target`: every target of the step has the same weight, however the step is split into micro-batches and ranks; otherwise every
    micro-batch has. Then micro-batches may be joined to passes of at most `positions` positions, padding included. `passes()` counts the passes over the data; `describe(loader state)` returns metrics of the data.
    """

    def __init__(
        self,
        forward: Forward,
        loader: Loader,
        ranks: Ranks,
        accumulation: int,
        *,
        by_target: bool = False,
        positions: int = 0,
        passes: Callable[[], float] = lambda: 0.0,
        describe: Callable[[dict[str, Any]], Values] = lambda state: {},
    ):
        self._forward, self._ranks, self._accumulation, self._by_target = forward, ranks, accumulation, by_target
        self._describe, self._positions = describe, positions
        self._feed = Feed(loader, ranks.device, passes, ahead=max(AHEAD, accumulation) if positions else AHEAD)

    @property
    def state(self) -> dict[str, Any]:
        return self._feed.state

    @property
    def progress(self) -> float:
        return self._feed.progress

    @property
    def waited(self) -> float:
        return self._feed.waited

    def gradients(self, step: int) -> Gradients:
        losses = []
        self._tokens = self._counted = 0
        for inputs, targets in self._joined() if self._positions else self._taken():
            with self._ranks.autocast():
                loss = self._forward(inputs, targets, reduction="sum") if self._by_target else self._forward(inputs, targets)
            torch.autograd.backward(loss if self._by_target else loss / self._accumulation)
            self._feed.draw_ahead()
            losses.append(loss.detach())
        found = torch.stack(losses)
        if self._by_target:
            return Gradients(found.sum(), self._tokens, targets=self._counted)
        return Gradients(found.mean(), self._tokens)

    def _taken(self) -> Iterator[Batch]:
        for _ in range(self._accumulation):
            inputs, targets = self._feed.take()
            self._counted += self._feed.counted
            self._tokens += inputs.numel()
            yield inputs, targets

    def _joined(self) -> Iterator[Batch]:
        """The step's micro-batches in fewer passes. Short ones alone would leave a GPU waiting for its next kernel."""
        for group in packing.by_length(
            list(self._taken()), lambda batch: (batch[0].size(0), batch[0].size(1)), self._positions
        ):
            yield packing.join(group)

    def figures(self, sums: Values) -> dict[str, float | None]:
        return dict(self._describe(self._feed.state))

    def totals(self) -> Values:
        return {key: self._feed.state[key] for key in REPORTED if key in self._feed.state}

    def close(self) -> None:
        self._feed.close()

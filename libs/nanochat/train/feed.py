"""Move batches from a loader to the device, before the step that needs them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nanochat.model.loss import IGNORE

AHEAD = 3  # batches to prefetch: a GPU needs about a second for three of d20, enough to read a slow row group


class Loader(Protocol):
    """The interface of a data loader.

    `next_batch()` returns (inputs, targets), both (B, T) int64 on the CPU; a target of -1 does not count in the loss.
    `state()` is the position after the batches returned so far, as JSON.
    """

    def next_batch(self) -> tuple[Tensor, Tensor]: ...
    def state(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class LoadedBatch:
    """A batch with the number of targets that count, and the loader's `state` and `progress` right after it.

    A loader resumed from `state` returns the next batch.
    """

    inputs: Tensor
    targets: Tensor
    counted: int
    state: dict[str, Any]
    progress: float


class Feed:
    """Hands batches to the training loop.

    For a GPU, a thread prefetches them into pinned memory. On a CPU it would only compete with the training, so there is none.
    `state`, `progress` and `counted` belong to the last batch taken, however many have been prefetched. `counted` is its number of
    targets that count in the loss, known on the host.
    """

    def __init__(self, loader: Loader, device: torch.device, progress: Callable[[], float], ahead: int = AHEAD):
        self._loader, self._device, self._progress = loader, device, progress
        self.state, self.progress = loader.state(), progress()
        self.counted = 0
        self.waited = 0.0  # seconds that training has spent waiting in take()
        self._ahead = Prefetcher(self._pinned, ahead) if device.type == "cuda" else None

    def draw_ahead(self) -> None:
        """Prefetch in the background up to `ahead` batches.

        Call this when kernels are queued on the device. Two Python threads slow each other down, so a device that waits for
        its next kernel would wait longer.
        """
        if self._ahead:
            self._ahead.fill()

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the next (inputs, targets), (B, T) int64, on the device. Raises what the loader raises."""
        start = time.perf_counter()
        batch = self._ahead.take() if self._ahead else self._load()
        self.waited += time.perf_counter() - start
        self.state, self.progress, self.counted = batch.state, batch.progress, batch.counted
        # int64, as the model needs them. 1 MB at 32 x 2048 takes 40 us of a 300 ms micro-step (by arithmetic), so a narrower
        # type would gain nothing.
        return batch.inputs.to(self._device, non_blocking=True), batch.targets.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Stop prefetching. Waits for the batch that is being loaded."""
        if self._ahead:
            self._ahead.close()

    def _load(self) -> LoadedBatch:
        inputs, targets = self._loader.next_batch()
        return LoadedBatch(inputs, targets, int((targets != IGNORE).sum()), self._loader.state(), self._progress())

    def _pinned(self) -> LoadedBatch:
        # A new thread starts on GPU 0. Without this, pinning memory would open a CUDA context of every rank there.
        torch.cuda.set_device(self._device)
        batch = self._load()
        batch.inputs, batch.targets = batch.inputs.pin_memory(), batch.targets.pin_memory()
        return batch


class Prefetcher:
    """Calls `draw` in one background thread and returns its results in order. Each `fill` tops them up to `depth`."""

    def __init__(self, draw: Callable[[], LoadedBatch], depth: int):
        self._draw, self._depth = draw, depth
        self._thread = ThreadPoolExecutor(1, "feed")
        self._drawn: deque[Future[LoadedBatch]] = deque()

    def fill(self) -> None:
        while len(self._drawn) < self._depth:
            self._drawn.append(self._thread.submit(self._draw))

    def take(self) -> LoadedBatch:
        """Return the next result. Raises what `draw` raises; then this is closed, since later results would leave a gap."""
        if not self._drawn:
            self.fill()
        try:
            return self._drawn.popleft().result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._drawn.clear()

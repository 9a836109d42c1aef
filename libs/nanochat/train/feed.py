"""Batches from a loader to the device, ahead of the step that needs them, with the loader's position as of each batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

AHEAD = 3  # batches, about a second of a d20 step's work: a slow row group is read in that time


class Loader(Protocol):
    """What the loop asks of its data. Batches are (inputs, targets), (B, T) int64 on the CPU; -1 marks no target."""

    def next_batch(self) -> tuple[Tensor, Tensor]: ...
    def state(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class LoadedBatch:
    """`state` and `progress` are the loader's right after this batch: to resume there is to go on with the next one."""

    inputs: Tensor
    targets: Tensor
    state: dict[str, Any]
    progress: float


class Feed:
    """Draws ahead of a GPU in another thread, into pinned memory; on a CPU that would only compete.

    `state` and `progress` are those of the last batch taken, whatever has been drawn.
    """

    def __init__(self, loader: Loader, device: torch.device, progress: Callable[[], float]):
        self._loader, self._device, self._progress = loader, device, progress
        self.state, self.progress = loader.state(), progress()
        self.waited = 0.0  # seconds that take() kept the training waiting
        self._ahead = Prefetcher(self._pinned, AHEAD) if device.type == "cuda" else None

    def draw_ahead(self) -> None:
        """Draw in the background what is missing. Call it when the device has work to do: two Python threads hinder each other,
        and a device that waits for its next kernel would wait longer."""
        if self._ahead:
            self._ahead.fill()

    def take(self) -> tuple[Tensor, Tensor]:
        """The next (inputs, targets) on the device. Raises what the loader raises."""
        start = time.perf_counter()
        batch = self._ahead.take() if self._ahead else self._load()
        self.waited += time.perf_counter() - start
        self.state, self.progress = batch.state, batch.progress
        # int64, as the model wants them: 1 MB at 32 x 2048, 40 us of a 300 ms micro-step by arithmetic; narrower gains nothing.
        return batch.inputs.to(self._device, non_blocking=True), batch.targets.to(self._device, non_blocking=True)

    def close(self) -> None:
        """Draw no more; waits for the batch being drawn."""
        if self._ahead:
            self._ahead.close()

    def _load(self) -> LoadedBatch:
        inputs, targets = self._loader.next_batch()
        return LoadedBatch(inputs, targets, self._loader.state(), self._progress())

    def _pinned(self) -> LoadedBatch:
        torch.cuda.set_device(self._device)  # a thread starts on GPU 0, where every rank's would open a context to pin memory
        batch = self._load()
        batch.inputs, batch.targets = batch.inputs.pin_memory(), batch.targets.pin_memory()
        return batch


class Prefetcher:
    """What `draw` returns, in order, from one thread that makes up to `depth` results ready at each `fill`."""

    def __init__(self, draw: Callable[[], LoadedBatch], depth: int):
        self._draw, self._depth = draw, depth
        self._thread = ThreadPoolExecutor(1, "feed")
        self._drawn: deque[Future[LoadedBatch]] = deque()

    def fill(self) -> None:
        while len(self._drawn) < self._depth:
            self._drawn.append(self._thread.submit(self._draw))

    def take(self) -> LoadedBatch:
        """The next result. Raises what `draw` raises, and is closed then: what came after a failed draw would leave a hole."""
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

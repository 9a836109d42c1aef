"""Batches from a loader to the device, ahead of the step that needs them, with the loader's position as of each batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Loader(Protocol):
    """What the loop asks of its data. Batches are (inputs, targets), (B, T) int64 on the CPU; -1 marks no target."""

    def next_batch(self) -> tuple[Tensor, Tensor]: ...
    def state(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Batch:
    """`state` and `progress` are the loader's right after this batch: to resume there is to go on with the next one."""

    inputs: Tensor
    targets: Tensor
    state: dict[str, Any]
    progress: float


class Feed:
    """Draws one batch ahead. On a GPU another thread tokenises while the device computes; on a CPU that would only compete."""

    def __init__(self, loader: Loader, device: torch.device, progress: Callable[[], float]):
        self._loader, self._device, self._progress = loader, device, progress
        self.state, self.progress = loader.state(), progress()
        self.waited = 0.0  # seconds that take() kept the training waiting
        self._thread = ThreadPoolExecutor(1, "feed") if device.type == "cuda" else None
        self._ahead: Future[Batch] | None = None

    def take(self) -> tuple[Tensor, Tensor]:
        """The next (inputs, targets) on the device. Raises what the loader raises."""
        start = time.perf_counter()
        if self._thread:
            batch = (self._ahead or self._thread.submit(self._load)).result()
            self._ahead = self._thread.submit(self._load)
        else:
            batch = self._load()
        self.waited += time.perf_counter() - start
        self.state, self.progress = batch.state, batch.progress
        return batch.inputs.to(self._device, non_blocking=True), batch.targets.to(self._device, non_blocking=True)

    def close(self) -> None:
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def _load(self) -> Batch:
        inputs, targets = self._loader.next_batch()
        if self._thread:
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return Batch(inputs, targets, self._loader.state(), self._progress())

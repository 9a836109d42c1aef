"""Tensors as of one moment in host memory, and files that are proven to hold what was meant."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanochat.contract.contract import sha256_file

CHUNK = 1 << 24  # bytes compared at a time
ALIGN = 64  # bytes; enough for a view of any dtype


class Snapshot:
    """A copy of named tensors in one buffer, allocated once and used again by every later `take`.

    For CUDA tensors the buffer is pinned: the copy then runs at the speed of the bus, several times that of pageable memory.
    """

    def __init__(self, *, pinned: bool = False):
        self._pinned = pinned
        self.tensors: dict[str, Tensor] = {}

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors.values())

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Memory for these tensors; the same as before when names, shapes and dtypes are."""
        if _layout(tensors) == _layout(self.tensors):
            return
        self.tensors = {}  # frees the old buffer before there is a new one
        total = sum(_aligned(t.nbytes) for t in tensors.values())
        buffer = torch.empty(total, dtype=torch.uint8, pin_memory=self._pinned)
        offset = 0
        for name, tensor in tensors.items():
            self.tensors[name] = buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            offset += _aligned(tensor.nbytes)

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy them as they are now. On return the originals may change."""
        self.reserve(tensors)
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor, non_blocking=self._pinned)
        if self._pinned:
            torch.cuda.synchronize()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, sync it, read it back and return the digest of what was read.

    The digest alone would seal a bad write as good, so each tensor is compared bit for bit with what was meant; and the
    pages are dropped first, where the system can, so that the bytes come from the disk. Raises OSError and SafetensorError.
    """
    save_file(dict(tensors), path)
    sync(path)
    digest = sha256_file(path)
    with safe_open(path, "pt") as file:
        same = all(_same_bits(file.get_tensor(name), value) for name, value in tensors.items())
    if not same:
        raise OSError(errno.EIO, f"{path} does not read back as it was written")
    return digest


def sync(path: Path) -> None:
    """Have the file's content, or the folder's entries, on the disk; what is read after this is read from there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        if hasattr(os, "posix_fadvise") and path.is_file():
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (t.shape, t.dtype) for name, t in tensors.items()}


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """As bytes, since a NaN does not equal itself; by numpy, since torch would take all cores from the training for it."""
    first, second = (t.reshape(-1).view(torch.uint8).numpy() for t in (one, other))
    parts = range(0, max(len(first), len(second)), CHUNK)
    return all(np.array_equal(first[at : at + CHUNK], second[at : at + CHUNK]) for at in parts)

"""Copies of tensors in host memory, and safetensors files that are verified after they are written."""

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
    """A copy of named tensors in one buffer. Every later `take` reuses the buffer.

    For CUDA tensors, pass `pinned`: the copy then runs at the speed of the bus, several times faster than into pageable memory.
    """

    def __init__(self, *, pinned: bool = False):
        self._pinned = pinned
        self.tensors: dict[str, Tensor] = {}

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in self.tensors.values())

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate memory for these tensors. If names, shapes and dtypes are unchanged, the old buffer stays."""
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
        """Copy the tensors. After the return, the originals may change."""
        self.reserve(tensors)
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor, non_blocking=self._pinned)
        if self._pinned:
            torch.cuda.synchronize()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a safetensors file, sync it, read it back and verify it. Returns the SHA-256 digest of the file as read.

    The digest alone would accept a bad write, so each tensor is compared bit for bit with its original. Where the system can
    do it, the file's pages are dropped from the cache first, so that the bytes come from the disk. Raises OSError, also when
    the file differs, and SafetensorError.
    """
    save_file(dict(tensors), path)
    sync(path)
    digest = sha256_file(path)
    with safe_open(path, "pt") as file:
        same = all(_same_bits(file.get_tensor(name), value) for name, value in tensors.items())
    if not same:
        raise OSError(errno.EIO, f"{path} does not read back as it was written; the disk may be failing")
    return digest


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk, and drop the file from the page cache where possible."""
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
    """Compare bytes, since a NaN does not equal itself. Use numpy, since torch would take every core from the training."""
    first, second = (t.reshape(-1).view(torch.uint8).numpy() for t in (one, other))
    parts = range(0, max(len(first), len(second)), CHUNK)
    return all(np.array_equal(first[at : at + CHUNK], second[at : at + CHUNK]) for at in parts)

"""Safetensors files, one or several with an index, read tensor by tensor. Headers are checked before any data is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nanochat.interchange.folder import Refused

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class Lazy:
    """A tensor that is read when it is needed. `origin` says where it comes from, for messages."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    origin: str = ""

    @classmethod
    def of(cls, tensor: Tensor, origin: str = "") -> Lazy:
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor.detach().cpu().contiguous(), origin)

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def to(self, dtype: torch.dtype) -> Lazy:
        return Lazy(self.shape, dtype, lambda: self.load().to(dtype), self.origin)

    def rows(self, start: int, stop: int) -> Lazy:
        return Lazy((stop - start, *self.shape[1:]), self.dtype, lambda: self.load()[start:stop].clone(), self.origin)


Tensors = Mapping[str, Lazy]


def nbytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def write(folder: Path, tensors: Tensors, shard_bytes: int) -> None:
    """Write one file, or shards of at most `shard_bytes` and their index, as `transformers` names them.

    Only one shard is in memory at a time. A tensor above `shard_bytes` gets a shard of its own.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    where: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensors[name].load() for name in names}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": nbytes(tensors)}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Lazy]:
    """The tensors of a folder. Raises Refused, naming the file, for missing or damaged files and for pickles."""
    if (folder / INDEX).is_file():
        where = read_json(folder / INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(file, str) and Path(file).name == file for file in where.values()):
            raise Refused(f"{folder / INDEX} has no weight_map of file names: copy it from the source again")
        found: dict[str, Lazy] = {}
        for file in sorted(set(where.values())):
            found |= _header(folder / file)
        missing = sorted(where.keys() - found.keys())
        if missing:
            raise Refused(
                f"{folder / where[missing[0]]} lacks the tensor {missing[0]!r}, which {INDEX} places there: copy it again"
            )
        return found
    if (folder / SINGLE).is_file():
        return _header(folder / SINGLE)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise Refused(
            f"{folder / pickles[0]} is a pickle, which can run any program when it is loaded, so it is not read."
            " Convert it where you trust it: model.save_pretrained(folder) of transformers writes safetensors"
        )
    raise Refused(f"{folder} has no weights: it needs {SINGLE}, or {INDEX} with its shards")


def _header(path: Path) -> dict[str, Lazy]:
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
            shapes = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (OSError, SafetensorError) as err:
        raise Refused(f"{path} cannot be read ({err}): copy it from the source again") from err
    found = {}
    for name, (shape, dtype) in shapes.items():
        if dtype not in DTYPES:
            raise Refused(
                f"{path}: the tensor {name!r} has the dtype {dtype}; expected one of {', '.join(DTYPES)}. Quantized weights"
                " cannot be imported: use the folder that they were made from"
            )
        found[name] = Lazy(shape, DTYPES[dtype], _loader(path, name), str(path))
    return found


def _loader(path: Path, name: str) -> Callable[[], Tensor]:
    def load() -> Tensor:
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return load


def read_json(path: Path) -> dict[str, Any]:
    """Raises Refused, naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise Refused(f"{path} does not exist: copy the whole folder from its source") from err
    except (OSError, ValueError) as err:
        raise Refused(f"{path} cannot be read ({err}): copy it from the source again") from err
    if not isinstance(value, dict):
        raise Refused(f"{path} is not a JSON object: copy it from the source again")
    return value

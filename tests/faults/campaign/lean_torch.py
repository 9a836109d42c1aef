"""The part of torch that torchrun uses: the C++ stores of the rendezvous, and the elastic agent. The rest is not imported.

`import torch` is 4 s of CPU time, nine tenths of what an attempt of the campaign costs; with this it is 0.7 s. The agent, its
rendezvous and its handling of signals are torchrun's own. A name that torchrun needs and that is missing here ends it at once.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import multiprocessing
import sys
from types import ModuleType
from typing import Any

STORES = ("Store", "FileStore", "HashStore", "PrefixStore", "TCPStore")
ERRORS = ("_DistError", "_DistNetworkError", "_DistStoreError")


def install() -> None:
    torch: Any = _bare("torch")
    core: Any = importlib.import_module("torch._C")
    distributed: Any = _bare("torch.distributed")
    core._c10d_init()
    stores = importlib.import_module("torch._C._distributed_c10d")
    for name in STORES:
        setattr(distributed, name, getattr(stores, name))
    for name in ERRORS:
        setattr(distributed, name.removeprefix("_"), getattr(core, name))
    distributed.is_available = lambda: True
    torch.device, torch.dtype, torch.Tensor = core.device, core.dtype, core.TensorBase
    torch._C, torch.distributed, torch.utils = core, distributed, _bare("torch.utils")
    torch.accelerator = _module("torch.accelerator", is_available=lambda: False)
    torch.cuda = _module("torch.cuda", is_available=lambda: False)  # asked for by torch 2.11
    torch.multiprocessing = _module(
        "torch.multiprocessing", **{**vars(multiprocessing), "_set_thread_name": core._set_thread_name}
    )


def _bare(name: str) -> ModuleType:
    """The package of that name, whose modules can be imported, without what its own `__init__` imports."""
    parent = name.rpartition(".")[0]
    found = importlib.machinery.PathFinder.find_spec(name, sys.modules[parent].__path__ if parent else None)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    return module


def _module(name: str, **names: Any) -> ModuleType:
    module = sys.modules[name] = ModuleType(name)
    vars(module).update({key: value for key, value in names.items() if not key.startswith("__")})
    return module

"""The saved position of a loader: a JSON object.

It also names the data, order, rank and world size to which it belongs, so that no loader resumes from another's position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from typing import Any

from nanochat.contract.contract import StageError

State = dict[str, Any]


def digest(data: Any) -> str:
    return hashlib.blake2b(repr(data).encode(), digest_size=8).hexdigest()


def check_state(state: State, identity: State) -> None:
    """Raises StageError when `state` belongs to another loader, rank, world size, order or data set than `identity`."""
    for key, expected in identity.items():
        if state.get(key) != expected:
            raise StageError(
                f"the loader's saved position has {key} {state.get(key)!r}, but this loader has {expected!r}",
                code="resume_mismatch",
                hint="resume with the same shards, seed, packing, order and number of processes, each rank from its own state",
            )


def identity_of(mixture: Sized, kind: str) -> State:
    """What a saved position names of a mixture of conversations. Raises StageError when it is empty."""
    if not len(mixture):
        raise StageError("the mixture holds no conversation", code="empty_mixture", hint="check its tasks and their sizes")
    return {"loader": kind, "data": digest([len(mixture)])}

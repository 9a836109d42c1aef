"""A loader's saved position: a JSON object that holds what it belongs to, so that no loader goes on from another's."""

from __future__ import annotations

import hashlib
from typing import Any

from nanochat.contract.contract import StageError

State = dict[str, Any]


def digest(data: Any) -> str:
    return hashlib.blake2b(repr(data).encode(), digest_size=8).hexdigest()


def check_state(state: State, identity: State) -> None:
    """Raises StageError when a state is another loader's, rank's, world size's, order's or data set's."""
    for key, here in identity.items():
        if state.get(key) != here:
            raise StageError(
                f"the loader's saved position has {key} {state.get(key)!r}; here it is {here!r}",
                code="resume_mismatch",
                hint="resume with the same shards, seed, packing, order and number of processes, each rank from its own state",
            )

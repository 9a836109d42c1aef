"""Resuming on another number of ranks: a loader's position close to where the ranks that saved one stood.

It may skip what those ranks had not finished, never repeats what they had: seen data would flatter the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nanochat.data.loader import CHUNK, GROUPS_PER_RANK, TextLoader


class Resizable(Protocol):
    def state(self) -> dict[str, Any]: ...


def state_near(fresh: Resizable, saved: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A state for the loader `fresh`, made from the states of all ranks of another world size, in rank order."""
    state = {**fresh.state(), "data": saved[0].get("data")}  # so that the loader refuses other data than before
    old, new = len(saved), int(state["world_size"])
    if not isinstance(fresh, TextLoader):
        return {**state, "position": _up(max(s["position"] + bool(s.get("offset")) for s in saved) * old, new), "offset": 0}
    epoch = max(s["epoch"] for s in saved)
    position, chunk = max((s["position"], s["chunk"]) for s in saved if s["epoch"] == epoch)
    if fresh.row_groups < GROUPS_PER_RANK * old:  # they shared out the documents of each row group
        if fresh.row_groups < GROUPS_PER_RANK * new:
            return {
                **state,
                "epoch": epoch,
                "position": position,
                "chunk": _up((chunk + 1) * CHUNK * old, CHUNK * new),
                "offset": 0,
            }
        begun = position + 1
    else:
        begun = (position + 1) * old
        new = 1 if fresh.row_groups < GROUPS_PER_RANK * new else new
    return {**state, "epoch": epoch, "position": _up(begun, new), "chunk": 0, "offset": 0}


def _up(number: int, unit: int) -> int:
    return -(-number // unit)

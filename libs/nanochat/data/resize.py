"""Map the saved states of a loader to another number of ranks.

The new position may skip data that the old ranks had not finished, but it never repeats data that they had used, which would
lower the loss without any learning. With best-fit packing, the skipped data include what was waiting on each rank: about
`bos_aligned.BUFFER` documents, or `best_fit.BUFFER` conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nanochat.data.best_fit import BestFitLoader
from nanochat.data.bos_aligned import BosAlignedLoader
from nanochat.data.documents import GROUPS_PER_RANK
from nanochat.data.loader import SftLoader, TextLoader
from nanochat.data.position import State

# Counts in a loader's state, whose sum over all ranks rank 0 goes on from.
COUNTS = ("cut_tokens", "skipped_conversations", "padding_tokens", "placed_tokens")


class Resizable(Protocol):
    def state(self) -> State: ...


def state_near(fresh: Resizable, saved: Sequence[State]) -> State:
    """Return a state for the loader `fresh`, made from `saved`: the states of all ranks that saved, in rank order."""
    own = fresh.state()
    new = int(own["world_size"])
    counts = {key: sum(s.get(key, 0) for s in saved) if own["rank"] == 0 else 0 for key in COUNTS if key in saved[0]}
    # Everything else stays as saved, so that the loader refuses a state with other data, another order or another packing.
    state = {**own, **saved[0], **counts, "rank": own["rank"], "world_size": new, "offset": 0}
    if isinstance(fresh, BosAlignedLoader):
        counts = {key: sum(s.get(key, 0) for s in saved) for key in ("placed", "cropped")}
        # The place in this state is the first unread chunk; in a stream's state it is the chunk in use.
        return {**state, "waiting": "", **counts, **_text(fresh.documents.row_groups, saved, new, begun=0)}
    if isinstance(fresh, TextLoader):
        return {**state, **_text(fresh.documents.row_groups, saved, new, begun=1)}
    if isinstance(fresh, BestFitLoader):
        return {**state, **_packed(own, saved)}
    if isinstance(fresh, SftLoader):
        return {**state, "position": max(s["position"] for s in saved)}  # of all ranks together
    return {**state, "position": _up(max(s["position"] + bool(s.get("offset")) for s in saved) * len(saved), new)}


def _packed(own: State, saved: Sequence[State]) -> State:
    """The conversation after the furthest rank. Those that were waiting are skipped; rank 0 counts them as such."""
    furthest = max(s["pass"] for s in saved)
    position = max(s["position"] for s in saved if s["pass"] == furthest)
    skipped = sum(s["skipped_conversations"] + len(s["waiting"]) for s in saved) if own["rank"] == 0 else 0
    place = {"pass": furthest, "position": _up(position * len(saved), int(own["world_size"]))}
    return {**place, "waiting": [], "skipped_conversations": skipped}


def _text(row_groups: int, saved: Sequence[State], new: int, *, begun: int) -> State:
    """Return the place after the furthest rank. `begun` chunks from its saved place on are already in use."""
    old = len(saved)
    epoch = max(s["epoch"] for s in saved)
    position, chunk = max((s["position"], s["chunk"] + begun) for s in saved if s["epoch"] == epoch)
    if row_groups < GROUPS_PER_RANK * old:  # the old ranks shared out the documents of each row group
        if row_groups < GROUPS_PER_RANK * new:
            return {"epoch": epoch, "position": position, "chunk": _up(chunk * old, new)}
        used = position + bool(chunk)
    else:
        used = (position + bool(chunk)) * old
        new = 1 if row_groups < GROUPS_PER_RANK * new else new
    return {"epoch": epoch, "position": _up(used, new), "chunk": 0}


def _up(number: int, unit: int) -> int:
    return -(-number // unit)

"""Work handed out to the GPUs of this machine, one piece a card at a time."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

Piece = TypeVar("Piece")
Found = TypeVar("Found")


def spread(pieces: Iterable[Piece], cards: int, work: Callable[[Piece, dict[str, str]], Found]) -> list[Found]:
    """`work(piece, env)` for every piece in turn, on whichever card is free; `env` shows it that card alone."""
    waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)
    found: list[Found] = []
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(card) for card in range(cards)]

    def serve(card: int) -> None:
        while True:
            try:
                piece = waiting.get_nowait()
            except queue.Empty:
                return
            found.append(work(piece, {"CUDA_VISIBLE_DEVICES": names[card]}))

    threads = [threading.Thread(target=serve, args=(card,)) for card in range(cards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found

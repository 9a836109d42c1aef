"""The messages between the HTTP process and an engine process, and how they travel over a socket pair.

A frame is a length, the kind of the message and its fields as MessagePack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from nanochat.contract.contract import Artifact
from nanochat.engine.request import FinishReason, Logprobs
from services.inference.engines.request import Order

KVCache = Literal["model", "fp8"]  # dtype of keys and values: that of the model, or fp8
Weights = Literal["model", "int8"]  # large matrices: as the model has them, or rounded to 8 bits
HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to an engine process. `device` None takes the best one; `threads` None leaves torch's own number."""

    device: str | None
    max_rows: int
    cache_share: float
    kv_cache: KVCache
    weights: Weights
    threads: int | None


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model beside the others, warm it up, then take orders for it. Answered by Loaded or NotLoaded."""

    model: str
    weights: Artifact
    tokenizer: Artifact


@dataclass(frozen=True, slots=True)
class Unload:
    """Take no more orders for a model. Its memory is freed when its last request ends."""

    model: str


@dataclass(frozen=True, slots=True)
class Submit:
    id: int
    order: Order


@dataclass(frozen=True, slots=True)
class Cancel:
    id: int


Command = Setup | Load | Unload | Submit | Cancel


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message from an engine process: it is about to serve."""

    device: str
    devices: int  # devices of this kind that the process could have used


@dataclass(frozen=True, slots=True)
class Loaded:
    model: str
    context: int  # most tokens of prompt and answer together


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """`code` and `hint` are those of the StageError."""

    model: str
    message: str
    code: str
    hint: str


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state of all engines of one process. The last four only grow while the process lives."""

    running: int = 0  # requests
    waiting: int = 0
    blocks: int = 0
    blocks_used: int = 0
    prefix_hits: int = 0  # tokens of prompts that were in the cache
    prefix_queries: int = 0  # tokens of prompts
    preemptions: int = 0
    steps: int = 0


# id of the request, index of the answer, token, mask, finish, log probabilities: one tuple a row, because a step has many rows
Row = tuple[int, int, int | None, int, FinishReason | None, Logprobs | None]


@dataclass(frozen=True, slots=True)
class Step:
    """What all engines of a process made of their rows, and the requests that failed, each with its reason.

    An idle process sends one without rows every second: the watchdog in the HTTP process listens for it.
    """

    rows: list[Row]
    failed: list[tuple[int, str]]
    gauges: Gauges


Report = Hello | Loaded | NotLoaded | Step


def _decoded(kind: Any, value: Any) -> Any:
    return kind.model_validate(value) if issubclass(kind, BaseModel) else NotImplemented


KINDS = (Setup, Load, Unload, Submit, Cancel, Hello, Loaded, NotLoaded, Step)
NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
ENCODER = msgspec.msgpack.Encoder(enc_hook=lambda model: model.model_dump())  # of the contract's models
DECODERS: list[msgspec.msgpack.Decoder[Any]] = [msgspec.msgpack.Decoder(kind, dec_hook=_decoded) for kind in KINDS]


def frame(message: Command | Report) -> bytes:
    body = ENCODER.encode(message)
    return len(body).to_bytes(HEADER_BYTES - 1, "big") + bytes((NUMBERS[type(message)],)) + body


class Frames:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Command | Report]:
        """The messages that are complete with `data`."""
        self._buffer += data
        messages: list[Command | Report] = []
        at = 0
        while len(self._buffer) - at >= HEADER_BYTES:
            start = at + HEADER_BYTES
            end = start + int.from_bytes(self._buffer[at : start - 1], "big")
            if len(self._buffer) < end:
                break
            messages.append(DECODERS[self._buffer[start - 1]].decode(self._buffer[start:end]))
            at = end
        del self._buffer[:at]
        return messages

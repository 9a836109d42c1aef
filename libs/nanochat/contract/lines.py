"""Tell the lines of an events file that are events from those that are not. Imports no torch.

The stage, `local-run` and the platform all read events through `sift`, so that they agree about every line. What passes can be
stored: each number fits its column, each time is a date, and each text has a length that an index takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

LONGEST = 1 << 22  # bytes; a longer line counts as several, so that one without an end cannot fill the memory
BIGINT = 2**63 - 1  # largest whole number that the platform stores
END_OF_TIME = 253_402_300_799  # seconds; the last one of the year 9999, where dates end
SEQ_AHEAD = 1000  # how far `seq` may be ahead of its line: each line that got lost on a full disk adds one
LONGEST_NAME = 200  # characters; names are parts of index entries, which hold at most 2,700 bytes
LONGEST_PATH = 2000  # bytes
MOST_VALUES = 1000  # of one metric event
DEEPEST = 32  # levels of a nested value
SHOWN = 200  # characters that a report shows of a line

Checks = Mapping[str, Callable[[Any], bool]]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not an event: its number in the file, counted from 0, what is wrong, and how it begins."""

    number: int
    reason: str
    text: str


@dataclass(slots=True)
class Sifted:
    """The events among some lines, the lines that are none, and the `seq` of the last event so far."""

    last_seq: int
    events: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)


def sift(lines: Iterable[bytes], first: int, last_seq: int) -> Sifted:
    """Sort consecutive lines of a file, of which the first has the number `first`. `last_seq` is that of the lines before, or -1."""
    found = Sifted(last_seq)
    for number, line in enumerate(lines, start=first):
        try:
            event = _event(line)
            if event["seq"] <= found.last_seq:
                raise ValueError(f"seq {event['seq']} does not follow {found.last_seq}")
            if event["seq"] > number + SEQ_AHEAD:
                raise ValueError(f"seq {event['seq']} is far ahead of its line {number}")
        except ValueError as err:
            found.bad.append(bad_line(number, line, err))
        else:
            found.last_seq = event["seq"]
            found.events.append(event)
    return found


def bad_line(number: int, line: bytes, reason: object) -> BadLine:
    return BadLine(number, str(reason)[:SHOWN], line[: 4 * SHOWN].decode(errors="replace")[:SHOWN].rstrip("\r\n"))


def _event(line: bytes) -> dict[str, Any]:
    """Raises ValueError, which says what is wrong."""
    try:
        event = _parsed(line)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as err:
        raise ValueError(f"is not JSON: {err.msg} at character {err.pos}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(event, dict):
        raise ValueError("is not a JSON object")
    if line.count(b"{") + line.count(b"[") > DEEPEST and _depth(event) > DEEPEST:
        raise ValueError(f"is nested more than {DEEPEST} levels deep")
    _check(event, COMMON, required=True)
    required, optional = FIELDS.get(event["kind"], ({}, {}))
    _check(event, required, required=True)
    _check(event, optional, required=False)
    return event


def _parsed(line: bytes) -> Any:
    """Three times as fast as `json`, which says better what is wrong, and also takes half of a surrogate pair."""
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError:
        return json.loads(line, parse_constant=_no_constant)


def _check(event: dict[str, Any], checks: Checks, *, required: bool) -> None:
    for name, check in checks.items():
        if name not in event:
            if required:
                raise ValueError(f"lacks the field {name!r}")
        elif not check(event[name]):
            raise ValueError(f"has a field {name!r} that cannot be stored")


def _no_constant(name: str) -> None:
    raise ValueError(f"is not JSON: it contains {name}")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
        ]
    return deepest - 1


# -- what a field may hold --


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= BIGINT


def _number(value: Any) -> bool:
    if value in ("nan", "inf", "-inf"):
        return True
    return type(value) is float or (type(value) is int and abs(value) < 10**300)


def _optional_number(value: Any) -> bool:
    return type(value) is float or value is None or _number(value)


def _finite(value: Any) -> bool:
    return _number(value) and not isinstance(value, str) and math.isfinite(value)


def _time(value: Any) -> bool:
    return _finite(value) and 0 <= value <= END_OF_TIME


def _name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _path(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode(errors="replace")) <= LONGEST_PATH


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _optional_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _table(value: Any) -> bool:
    return isinstance(value, dict)


def _metrics(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= MOST_VALUES
        and all(map(_name, value))
        and all(map(_optional_number, value.values()))
    )


COMMON = {"seq": _whole, "t": _time, "kind": _name}

# kind -> the fields that it must have, and those that it may have. A kind that is not here, or another field, may hold anything.
FIELDS: dict[str, tuple[Checks, Checks]] = {
    "progress": (
        {"done": _number, "total": _optional_number, "unit": _text},
        {"eta_s": _optional_number, "note": _optional_text},
    ),
    "metric": ({"step": _whole, "values": _metrics}, {}),
    "sample": ({"step": _whole, "prompt": _text, "text": _text}, {}),
    "eval": ({"name": _text, "values": _table}, {}),
    "checkpoint": (
        {"step": _whole, "path": _path, "sha256": _name, "bytes": _whole, "final": _flag},
        {"val_bpb": _optional_number},
    ),
    "checkpoint_deleted": ({"step": _whole, "path": _path}, {}),
    "artifact": ({"name": _name, "path": _path, "sha256": _name}, {}),
    "log": ({"level": _text, "message": _text}, {}),
    "warning": ({"code": _text, "message": _text}, {}),
    "error": ({"code": _text, "message": _text}, {}),
}

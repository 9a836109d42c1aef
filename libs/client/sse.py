"""Server-sent events: the wire format of the WHATWG HTML standard, section 9.2.6, as an incremental parser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event. `id` is the last one the stream named, which need not be this event's own."""

    event: str
    data: str
    id: str


def parse(chunks: Iterable[str]) -> Iterator[ServerEvent]:
    """Events of a stream of decoded text, however it is cut. An event without its closing blank line is dropped."""
    name, data, last_id = "", list[str](), ""
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(name or "message", "\n".join(data), last_id)
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            last_id = value
        # Anything else, a comment (empty field name) included, is ignored.


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    # str.splitlines would also cut at U+2028 and others, which may stand inside JSON text.
    rest = ""
    for chunk in chunks:
        rest += chunk
        held = rest.endswith("\r")  # may be the first half of \r\n
        text = rest[:-1] if held else rest
        *whole, tail = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from whole
        rest = tail + "\r" if held else tail
    if rest.endswith("\r"):
        yield rest[:-1]

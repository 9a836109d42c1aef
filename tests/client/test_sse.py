"""Reading server-sent events: the same events, wherever the stream is cut and whatever ends its lines."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import httpx
import pytest
from fastapi.sse import format_sse_event
from hypothesis import given, settings
from hypothesis import strategies as st

from client.sse import events

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=20)


def read(chunks: Iterable[bytes], content_type: str = "text/event-stream; charset=utf-8") -> list[tuple[str, str, str]]:
    """Name, data and id of each event of a response that arrives in these chunks."""
    response = httpx.Response(200, headers={"content-type": content_type}, content=iter(chunks))
    return [(event.event, event.data, event.id) for event in events(response)]


@given(
    messages=st.lists(st.tuples(st.sampled_from(["", "end", "log"]), TEXT, st.integers(0, 10**9)), max_size=5),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_events_survive_any_cut_and_line_end(messages: list[tuple[str, str, int]], line_end: str, cuts: list[int]) -> None:
    wire = b""
    for name, text, number in messages:
        data = json.dumps({"line": text}, ensure_ascii=False)  # may hold U+2028, which does not end a line here
        wire += f": ping{line_end}{line_end}".encode()
        wire += format_sse_event(event=name or None, data_str=data, id=str(number)).replace(b"\n", line_end.encode())
    edges = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]  # a cut may fall inside a character
    found = read(wire[a:b] for a, b in itertools.pairwise(edges))
    assert [(name, json.loads(data)["line"], id) for name, data, id in found] == [
        (name or "message", text, str(number)) for name, text, number in messages
    ]


def test_several_data_lines_are_one_text_and_the_id_stays_until_the_next() -> None:
    found = read([b"id: 7\ndata: a\ndata:b\ndata\n\n", b"data: c\n\n"])
    assert found == [("message", "a\nb\n", "7"), ("message", "c", "7")]


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    assert read([b"data: whole\n\ndata: half\n"]) == [("message", "whole", "")]


def test_comments_and_unknown_fields_and_events_without_data_are_nothing() -> None:
    assert read([b": keep-alive\n\nretry: 10\n\nevent: x\n\n"]) == []
    assert read([b"id: 7\ndata: a\n\n", b": keep-alive\n\n", b"event: x\n\n"]) == [("message", "a", "7")]


def test_a_page_that_is_no_event_stream_is_an_error_of_the_transport() -> None:
    with pytest.raises(httpx.TransportError, match="text/event-stream"):
        read([b"<html>"], content_type="text/html")

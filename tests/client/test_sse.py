"""The parser of server-sent events: whatever the cuts and line ends, the same events."""

from __future__ import annotations

import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from client.sse import ServerEvent, parse

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=20)


@given(
    messages=st.lists(st.tuples(st.sampled_from(["", "end", "log"]), TEXT, st.integers(0, 10**9)), max_size=5),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_events_survive_any_cut_and_line_end(messages: list[tuple[str, str, int]], line_end: str, cuts: list[int]) -> None:
    wire = ""
    for name, text, number in messages:
        data = json.dumps({"line": text}, ensure_ascii=False)  # may hold U+2028, which is no line end here
        wire += f": ping{line_end}" + (f"event: {name}{line_end}" if name else "")
        wire += f"data: {data}{line_end}id: {number}{line_end}{line_end}"
    edges = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    events = list(parse(wire[a:b] for a, b in itertools.pairwise(edges)))
    assert [(e.event, json.loads(e.data)["line"], e.id) for e in events] == [
        (name or "message", text, str(number)) for name, text, number in messages
    ]


def test_several_data_lines_are_one_text_and_the_id_stays_until_the_next() -> None:
    events = list(parse(["id: 7\ndata: a\ndata:b\ndata\n\n", "data: c\n\n"]))
    assert events == [ServerEvent("message", "a\nb\n", "7"), ServerEvent("message", "c", "7")]


def test_an_event_that_was_cut_off_is_not_delivered() -> None:
    assert list(parse(["data: whole\n\ndata: half\n"])) == [ServerEvent("message", "whole", "")]


def test_comments_and_unknown_fields_and_events_without_data_are_nothing() -> None:
    assert list(parse([": keep-alive\n\nretry: 10\n\nevent: x\n\n"])) == []

"""Lines that are no events are set aside, whatever they hold; the others are read, by the stage as by the platform."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.contract.events import EventLog, read
from nanochat.contract.lines import LONGEST, sift

GOOD = {"v": 1, "seq": 0, "t": 1_700_000_000.0, "kind": "metric", "step": 3, "values": {"loss": 2.5, "lr": "nan", "x": None}}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


CHECKPOINT = {"kind": "checkpoint", "step": 1, "path": "/x", "sha256": "0", "bytes": 1, "final": True}

BAD = {
    "time beyond all dates": line(t=1e300),
    "time before all dates": line(t=-1e12),
    "time that is infinite": b'{"v": 1, "seq": 0, "t": 1e999, "kind": "log"}',
    "time that is no number": line(t="now"),
    "a step beyond the column": line(step=2**63),
    "a step that is no whole number": line(step=1.5),
    "a step that is a flag": line(step=True),
    "a seq beyond the column": line(seq=2**70),
    "a seq far ahead": line(seq=10**6),
    "a number of 5000 digits": b'{"v": 1, "seq": 0, "t": 1' + b"0" * 5000 + b', "kind": "log"}',
    "a value beyond all floats": line(values={"loss": 10**400}),
    "a value that is a table": line(values={"loss": {}}),
    "a value that is a word": line(values={"loss": "high"}),
    "values that are a list": line(values=[1.0]),
    "a key too long for an index": line(values={"k" * 3000: 1.0}),
    "too many keys": line(values={f"k{n}": 1.0 for n in range(1001)}),
    "a path too long for an index": line(**CHECKPOINT | {"path": "/" * 3000}),
    "a checkpoint without a size": line(kind="checkpoint", step=1, path="/x", sha256="0", final=True),
    "progress that is a word": line(kind="progress", done="some", total=3, unit="step"),
    "a kind that is a list": line(kind=[]),
    "nested too deeply": line(more=json.loads("[" * 50 + "]" * 50)),
    "nested far too deeply": b'{"v":1,"seq":0,"t":1.0,"kind":"log","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "NaN": b'{"v": 1, "seq": 0, "t": NaN, "kind": "log"}',
    "half a line": b'{"v": 1, "seq":',
    "no table": b"[]",
    "no JSON": b"Traceback (most recent call last):",
    "no text": b"\xff\xfe\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_line_that_cannot_be_stored_is_set_aside_and_the_rest_is_kept(tmp_path: Path, bad: bytes) -> None:
    lines = [line(seq=0), bad, line(seq=1)]
    sifted = sift(lines, 0, -1)
    assert [e["seq"] for e in sifted.events] == [0, 1]
    (found,) = sifted.bad
    assert found.number == 1
    assert found.reason
    assert len(found.text) <= 200
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert list(read(path)) == sifted.events
    log = EventLog(path)
    log.emit("log", level="info", message="goes on")
    log.close()
    assert [e["seq"] for e in read(path)] == [0, 1, 2]


@given(st.lists(st.one_of(st.binary(max_size=60), st.just(b"good")), max_size=12))
def test_no_line_whatsoever_raises(lines: list[bytes]) -> None:
    good = iter(range(len(lines)))
    spool = [line(seq=next(good)) if text == b"good" else text.replace(b"\n", b"") for text in lines]
    sifted = sift(spool, 0, -1)
    assert len(sifted.events) + len(sifted.bad) == len(spool)
    assert [e["seq"] for e in sifted.events] == list(range(lines.count(b"good")))


def test_an_event_that_was_written_twice_counts_once() -> None:
    sifted = sift([line(seq=0), line(seq=1), line(seq=1), line(seq=2)], 0, -1)
    assert [e["seq"] for e in sifted.events] == [0, 1, 2]
    assert "does not follow" in sifted.bad[0].reason


def test_a_line_without_end_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line() + b"\n" + b"x" * (LONGEST + 5) + b"\n" + line(seq=1) + b"\n" + line(seq=2))
    assert [e["seq"] for e in read(path)] == [0, 1]


def test_a_full_disk_costs_events_but_not_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.emit("progress", done=1, total=9, unit="step")
    write = os.write
    with monkeypatch.context() as full:

        def half(fd: int, data: bytes) -> int:
            full.setattr(os, "write", nothing)
            return write(fd, data[:20])

        def nothing(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(os, "write", half)
        log.emit("metric", step=1, values={"loss": 1.0})
        log.emit("metric", step=2, values={"loss": 1.0})
        with pytest.raises(OSError, match="No space"):
            log.emit("artifact", name="model", path="/x", sha256="0")
    log.emit("artifact", name="model", path="/x", sha256="0")
    log.close()
    assert [e["kind"] for e in read(path)] == ["progress", "warning", "artifact"]
    assert "2 events" in next(e for e in read(path) if e["kind"] == "warning")["message"]


def test_a_file_that_ends_inside_a_line_is_continued_on_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line() + b'\n{"v": 1, "seq"')
    log = EventLog(path)
    log.emit("log", level="info", message="lone \ud800 surrogate")
    log.close()
    assert [e["kind"] for e in read(path)] == ["metric", "log"]

"""Reading files that grow, that end in half a line, and that hold lines which are not events."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.contract.lines import LONGEST
from services.worker import spool
from services.worker.spool import Tail


def drain(tail: Tail, *, last: bool = False) -> list[bytes]:
    lines = []
    while (batch := tail.read(last=last)).lines:
        assert batch.first == tail.line
        tail.advance(batch)
        lines += batch.lines
    return lines


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=30), cuts=st.lists(st.integers(0, 700))
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whole_lines_each_once_however_they_arrive(tmp_path: Path, lines: list[bytes], cuts: list[int]) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"")
    data = b"".join(line + b"\n" for line in lines)
    tail, seen, written = Tail(path), [], 0
    for cut in sorted(min(c, len(data)) for c in cuts):
        with path.open("ab") as file:
            file.write(data[written:cut])
        written = cut
        seen += drain(tail)
        assert seen == lines[: data[:written].count(b"\n")]
    with path.open("ab") as file:
        file.write(data[written:])
    seen += drain(tail)
    assert seen == lines


def test_what_was_not_stored_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"a\nb\n")
    tail = Tail(path)
    assert tail.read().lines == tail.read().lines == [b"a", b"b"]
    tail.advance(tail.read())
    assert tail.read().lines == []
    assert (tail.line, tail.offset) == (2, 4)


def test_an_unfinished_line_waits_unless_it_is_the_last(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    tail = Tail(path)
    assert tail.read().lines == []  # no file yet
    path.write_bytes(b"whole\nhalf")
    assert drain(tail) == [b"whole"]
    assert drain(tail, last=True) == [b"half"]
    assert drain(tail, last=True) == []


def test_a_line_without_end_cannot_stall_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"x" * (LONGEST + 10) + b"\nnext\n")
    lines = drain(Tail(path))
    assert b"".join(lines[:-1]) == b"x" * (LONGEST + 10)
    assert lines[-1] == b"next"


def test_a_flood_of_short_lines_comes_in_bounded_batches(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    path.write_bytes(b"\n" * (3 * spool.MOST_LINES + 5) + b"last\n")
    tail, sizes = Tail(path), []
    while (batch := tail.read()).lines:
        sizes.append(len(batch.lines))
        tail.advance(batch)
    assert sizes == [spool.MOST_LINES] * 3 + [6]
    assert tail.offset == path.stat().st_size

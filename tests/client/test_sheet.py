"""Tables: whatever the width of the terminal, nothing is wider than it and no id is cut."""

from __future__ import annotations

import io
import math

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from client.sheet import Bar, Column, Sheet
from client.spark import sparkline

ID = "r_0123456789abcdef"
WORDS = st.text("abc def", max_size=60)


def drawn(sheet: Sheet, width: int) -> str:
    page = io.StringIO()
    Console(file=page, width=width).print(sheet)
    return page.getvalue()


@given(st.integers(24, 160), st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_an_id_is_whole_and_no_line_is_too_wide(width: int, names: list[str], detail: str) -> None:
    sheet = Sheet("id", Column("name", wrap=True), Column("bar", drop=2), "status", Column("detail", wrap=True, drop=1))
    for name in names:
        sheet.add(ID, name, Bar(0.5), Text("✔ SUCCEEDED", style="green"), detail)
    shown = drawn(sheet, width)
    assert shown.count(ID) == len(names)
    assert shown.count("SUCCEEDED") == len(names)
    assert max(len(line) for line in shown.splitlines()) <= width


def test_the_column_of_the_greatest_number_goes_first() -> None:
    sheet = Sheet("id", Column("first to go", drop=2), Column("second", drop=1))
    sheet.add(ID, "x", "y")
    assert "first to go" in drawn(sheet, 40)
    assert "first to go" not in drawn(sheet, 30)
    assert "second" in drawn(sheet, 30)
    assert "second" not in drawn(sheet, 20)


def test_piped_a_row_is_one_line_of_cells_between_tabs() -> None:
    sheet = Sheet("id", "name", "done")
    sheet.add(ID, "two\nlines\tand a \x1b[31mcolour", Bar(0.5))
    head, row = sheet.tsv()
    assert head == "id\tname\tdone"
    assert row == f"{ID}\ttwo lines and a  [31mcolour\t50 %"


def test_a_curve_in_one_line() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1, 1], 8) == "▄▄▄"
    assert sparkline([0, None, 7], 8) == "▁·█"
    assert sparkline([math.inf, None], 8) == "··"
    assert sparkline([], 8) == ""
    assert len(sparkline(list(range(1000)), 20)) == 20

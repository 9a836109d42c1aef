"""Numbers and times as people read them."""

from __future__ import annotations

import pytest

from client.text import number, seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        ("nan", "nan"),
        (0, "0"),
        (100, "100"),
        (4.21773, "4.218"),
        (0.000123456, "0.0001235"),
        (9_999, "9999"),
        (10_240.0, "10.2k"),
        (560_988_160, "561M"),
        (11_219_763_200, "11.2G"),
        (3.9e19, "3.9e+07T"),
        (-12_345, "-12.3k"),
    ],
)
def test_number(value: float | str | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("s", "text"),
    [(-1, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m00s"), (3_599, "59m59s"), (14_400, "4h00m"), (200_000, "2d07h")],
)
def test_seconds(s: float, text: str) -> None:
    assert seconds(s) == text

"""Numbers and durations as people read them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.models import Stage
from client.plan_models import Plan
from client.text import cost_of, dollars, flops, number, plan_summary, seconds
from client.watch import plain_line
from tests.catalog import CATALOG

SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
FIRST_BELOW = {"s": 60, "m": 60, "h": 48, "d": 10**6}  # what the first number of a duration stays below, by its unit


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        ("nan", "nan"),
        (0, "0"),
        (-0.0, "0"),
        (100, "100"),
        (4.21773, "4.218"),
        (0.000123456, "0.0001235"),
        (9_999, "9999"),
        (9_999.6, "10k"),
        (10_240.0, "10.2k"),
        (999_499, "999k"),
        (999_999, "1M"),
        (560_988_160, "561M"),
        (1_200_000_000, "1.2B"),
        (11_219_763_200, "11.2B"),
        (1.2e12, "1.2T"),
        (3.9e19, "3.90e19"),
        (float("inf"), "inf"),
        (-12_345, "-12.3k"),
    ],
)
def test_number(value: float | str | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (4.1e19, "4.10e19"), (3_490_000_000, "3.49e9"), (9.999e9, "1.00e10"), (0.0, "0.00e0")]
)
def test_flops(value: float | None, text: str) -> None:
    assert flops(value) == text


@given(st.one_of(st.integers(0, 10**15 - 10**12), st.floats(1, 999e12)))
def test_a_number_keeps_three_digits_and_its_unit_is_the_one_that_fits(value: float) -> None:
    match = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)([kMBT]?)", number(value))
    assert match, number(value)
    shown = float(match[1])
    assert shown < (1000 if match[2] else 10_000)
    assert shown * SUFFIXES[match[2]] == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59, "59s"),
        (59.6, "1m00s"),
        (60, "1m00s"),
        (3_599, "59m59s"),
        (3_599.6, "1h00m"),
        (14_400, "4h00m"),
        (172_799.6, "2d00h"),
        (200_000, "2d07h"),
    ],
)
def test_seconds(s: float, text: str) -> None:
    assert seconds(s) == text


DURATIONS = st.one_of(st.floats(0, 10**8), st.integers(0, 10**6).map(lambda minutes: 60 * minutes - 0.3))


def read(text: str) -> int:
    """The duration that a person reads. Fails when a number is so large that a larger unit should have been used."""
    parts = re.findall(r"(\d+)([smhd])", text)
    assert "".join(n + unit for n, unit in parts) == text
    assert int(parts[0][0]) < FIRST_BELOW[parts[0][1]], text
    for (_, larger), (n, unit) in itertools.pairwise(parts):
        assert int(n) * UNITS_S[unit] < UNITS_S[larger], text
    return sum(int(n) * UNITS_S[unit] for n, unit in parts)


@given(DURATIONS)
def test_a_duration_is_never_sixty_of_a_unit_and_loses_less_than_its_last_unit(s: float) -> None:
    text = seconds(s)
    assert -0.5 <= max(0.0, s) - read(text) < UNITS_S[text[-1]] + 0.5


@given(DURATIONS, DURATIONS)
def test_a_longer_duration_never_reads_shorter(a: float, b: float) -> None:
    shorter, longer = sorted((a, b))
    assert read(seconds(shorter)) <= read(seconds(longer))


@pytest.mark.parametrize(("eta_s", "left"), [(35, "35s left"), (59.7, "1m00s left"), (14_400, "4h00m left")])
def test_a_plain_line_tells_the_time_left_in_hours_and_minutes(eta_s: float, left: str) -> None:
    progress = {"done": 21_399, "total": 42_800, "unit": "step", "eta_s": eta_s}
    running: dict[str, Any] = {"name": "base_train", "kind": "base_train", "queue": "gpu", "status": "RUNNING"}
    stage = Stage.model_validate({**running, "progress": progress, "latest": {"loss": 4.21, "tok_per_s": 10_240}})
    assert plain_line(stage, CATALOG) == f"  ▶ base_train RUNNING 21.4k/42.8k step, loss 4.21, tok/s 10.2k, {left}"


def test_a_plan_counts_parameters_in_billions_and_flops_by_their_power_of_ten() -> None:
    figures = {"world_size": 8, "params": 1_879_048_192, "flops_per_token": 11_560_000_000, "total_flops": 4.1e20, "stages": []}
    plan = Plan.model_validate({"recipe": "run1000", "config": {}, "stages": [], "figures": figures})
    assert next(plan_summary(plan)).startswith("1.88B parameters, 1.16e10 FLOPs per token;")


def test_an_unknown_price_is_a_question_mark_and_no_cost_at_all_is_nothing() -> None:
    assert [dollars(None), dollars(0.0), dollars(1.234)] == ["?", "0.00", "1.23"]
    assert [cost_of(None, None), cost_of(2.0, None), cost_of(2.0, 6.0)] == ["", ", at an unknown price", ", $6.00"]

"""When runs of a sweep are compared, and which go on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.planning.early import StopEarly, goes_on, rung_step


@pytest.mark.parametrize(
    ("after", "unit", "keep", "steps"),
    [
        (0.25, "fraction", 0.5, [25, 50, None]),
        (10, "steps", 0.25, [10, 40, None]),
        (1000, "tokens", 0.5, [10, 20, 40, 80, None]),
        (100, "steps", 0.5, [None]),
        (1, "steps", 0.9, [1, 2, 3, 4]),  # a rung of its own at each step, not three at step 2
    ],
)
def test_rungs_lie_at_growing_steps_before_the_end(after: float, unit: str, keep: float, steps: list[int | None]) -> None:
    rule = StopEarly.model_validate({"metric": "val_bpb", "after": after, "unit": unit, "keep": keep})
    assert [rung_step(rule, no, 100, 10_000) for no in range(len(steps))] == steps


@pytest.mark.parametrize(("after", "unit"), [(5e-324, "fraction"), (1, "fraction"), (0.5, "steps"), (0.01, "tokens")])
def test_a_point_too_near_to_either_end_is_refused(after: float, unit: str) -> None:
    with pytest.raises(ValueError, match="after"):
        StopEarly.model_validate({"metric": "val_bpb", "after": after, "unit": unit})


@pytest.mark.parametrize(
    ("values", "keep", "lower", "kept"),
    [
        ([2.0], 0.5, True, [True]),
        ([2.0, 1.0, 3.0, 4.0], 0.5, True, [True, True, False, False]),
        ([2.0, 1.0, 3.0, 4.0], 0.5, False, [False, False, True, True]),
        ([1.0, 1.0, 1.0], 0.34, True, [True, True, True]),
        ([math.nan, 5.0, math.inf, -math.inf], 0.25, True, [False, True, False, False]),
        ([math.nan, math.nan], 0.5, True, [True, True]),
    ],
)
def test_the_best_fraction_goes_on(values: list[float], keep: float, lower: bool, kept: list[bool]) -> None:
    assert [goes_on(value, values, keep, lower=lower) for value in values] == kept


@given(st.lists(st.floats(), min_size=1, max_size=40), st.floats(0.01, 0.9), st.booleans())
def test_some_run_always_goes_on_and_none_that_is_better_is_stopped(values: list[float], keep: float, lower: bool) -> None:
    kept = [value for value in values if goes_on(value, values, keep, lower=lower)]
    stopped = [value for value in values if not goes_on(value, values, keep, lower=lower)]
    assert len(kept) >= keep * len(values)
    finite = [value for value in stopped if math.isfinite(value)]
    if finite:
        best = min(finite) if lower else max(finite)
        assert all(math.isfinite(value) and (value < best if lower else value > best) for value in kept)

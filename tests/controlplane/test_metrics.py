"""Metric series: buckets keep extremes, first and last points, and a resumed attempt supersedes the points that it repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from controlplane import chunks, folding, points
from controlplane import metrics as metrics_module
from controlplane.errors import NotFound
from controlplane.lifecycle import Reason
from controlplane.metrics import metrics
from controlplane.models import MetricBucket, MetricChunk, MetricPoint
from controlplane.schemas import MetricsView, PointView, SeriesView
from tests.controlplane.ledger import Ledger, metric
from tests.controlplane.test_claims import started_run
from tests.waiting import until


def read(ledger: Ledger, run: str, **how: object) -> MetricsView:
    with ledger.factory.begin() as s:
        return metrics(s, run, **how)  # type: ignore[arg-type]


def one(ledger: Ledger, run: str, max_points: int = 500, **how: object) -> SeriesView:
    (series,) = read(ledger, run, keys=["loss"], max_points=max_points, **how).series
    return series


def test_few_points_are_returned_as_they_are(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, *[metric(i, loss=1.0 / (i + 1), lrm=1.0) for i in range(5)])
    view = read(ledger, run)
    assert [(s.stage, s.key) for s in view.series] == [("data", "loss"), ("data", "lrm")]
    points = view.series[0].points
    assert [p.step for p in points] == [0, 1, 2, 3, 4]
    assert all(p.min == p.max == p.last == pytest.approx(1.0 / (p.step + 1)) for p in points)
    assert [p.t for p in points] == sorted(p.t for p in points)
    assert read(ledger, run, stage="tok_train").series == []
    assert read(ledger, run, keys=[]).series == []
    with pytest.raises(NotFound):
        read(ledger, "r_none")


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    gap=st.integers(1, 50),
    max_points=st.integers(3, 40),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_buckets_keep_extremes_first_and_last(ledger: Ledger, values: list[float], gap: int, max_points: int) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, *[metric(i * gap, loss=v) for i, v in enumerate(values)])
    points = one(ledger, run, max_points).points
    ledger.finish(claim.fence, Reason.BAD_INPUT)
    assert len(points) <= max_points
    assert min(p.min for p in points if p.min is not None) == min(values)
    assert max(p.max for p in points if p.max is not None) == max(values)
    assert (points[0].step, points[0].last) == (0, values[0])
    assert (points[-1].step, points[-1].last) == ((len(values) - 1) * gap, values[-1])
    assert [p.step for p in points] == sorted({p.step for p in points})
    for point in points:
        assert point.last == values[point.step // gap]


def test_values_that_are_not_finite_are_shown_and_do_not_spoil_extremes(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, metric(0, loss=2.0), metric(1, loss="nan"), metric(2, loss="inf"), metric(3, loss=1.0))
    points = one(ledger, run).points
    assert [(p.min, p.max, p.last) for p in points] == [(2, 2, 2), (None, None, None), (None, None, None), (1, 1, 1)]
    merged = one(ledger, run, max_points=3).points
    assert [p.last for p in merged] == [2.0, None, 1.0]
    assert not any(isinstance(p.min, float) and math.isnan(p.min) for p in merged)


def test_a_resumed_attempt_supersedes_later_points_of_earlier_attempts(ledger: Ledger) -> None:
    run, first = started_run(ledger)
    ledger.report(first.fence, *[metric(i, loss=100.0 + i) for i in range(10)])
    ledger.finish(first.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    second = ledger.begin(run, "data", "w", resumed_from_step=6)
    assert [p.last for p in one(ledger, run).points] == [100.0 + i for i in range(7)]
    ledger.report(second.fence, *[metric(i, loss=200.0 + i) for i in range(6, 9)])
    series = one(ledger, run)
    assert [(p.step, p.last) for p in series.points] == [
        *[(i, 100.0 + i) for i in range(6)],
        *[(i, 200.0 + i) for i in range(6, 9)],
    ]
    assert [(g.step, g.attempt) for g in series.gaps] == [(6, 2)]
    ledger.finish(second.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    third = ledger.begin(run, "data", "w")  # from the beginning, so that no earlier point counts
    ledger.report(third.fence, metric(0, loss=300.0))
    series = one(ledger, run)
    assert [(p.step, p.last) for p in series.points] == [(0, 300.0)]
    assert [(g.step, g.attempt) for g in series.gaps] == [(6, 2), (0, 3)]


def test_an_attempt_that_never_started_supersedes_nothing(ledger: Ledger) -> None:
    run, first = started_run(ledger)
    ledger.report(first.fence, metric(0, loss=1.0))
    ledger.finish(first.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    assert ledger.claim(run, "data", "w") is not None
    assert [p.last for p in one(ledger, run).points] == [1.0]
    assert one(ledger, run).gaps == []


def test_a_long_series_shows_what_its_points_show(ledger: Ledger) -> None:
    """Long enough to be read from chunks, with a resumption inside one of them and values that are not finite."""
    run, first = started_run(ledger)
    ledger.report(first.fence, *[metric(i, loss=100.0 + i) for i in range(1000)])
    ledger.report(first.fence, metric(700, loss="inf"), metric(5, loss=5.0))  # a step that is reported again
    ledger.finish(first.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    second = ledger.begin(run, "data", "w", resumed_from_step=710)
    ledger.report(second.fence, *[metric(i, loss=-float(i)) for i in range(710, 1500)], metric(900, loss="nan"))
    shown = (
        {i: 100.0 + i for i in range(710)}
        | {5: 5.0, 700: math.inf}
        | {i: -float(i) for i in range(710, 1500)}
        | {900: math.nan}
    )
    for max_points in (3, 10, 20, 40):
        check(one(ledger, run, max_points).points, shown, max_points)
    assert len(one(ledger, run, 1500).points) == 1500
    for first, last in ((0, 0), (0, 1499), (1, 1498), (690, 720), (710, 710), (3, 1200), (500, 5000)):
        within = {step: value for step, value in shown.items() if first <= step <= last}
        for max_points in (3, 10, 20, 40, 1500):
            series = one(ledger, run, max_points, from_step=first, to_step=last)
            check(series.points, within, max_points)
            assert series.bucketed == (len(within) > max_points)
            assert [(g.step, g.attempt) for g in series.gaps] == ([(710, 2)] if first <= 710 <= last else [])
    assert read(ledger, run, from_step=1500).series == []


def test_a_range_of_a_long_series_is_in_buckets_as_fine_as_those_of_a_whole_one(ledger: Ledger, small_chunks: None) -> None:
    """Wherever it begins: within a chunk, where one begins, or where no point is. Every third step has one."""
    run, claim = started_run(ledger)
    shown = {step: float(step % 7) for step in range(0, 600, 3)}
    ledger.report(claim.fence, *[metric(step, loss=value) for step, value in shown.items()])
    for first in range(90, 150):
        within = {step: value for step, value in shown.items() if first <= step <= first + 330}
        for max_points in (5, 20, 40):
            series = one(ledger, run, max_points, from_step=first, to_step=first + 330)
            check(series.points, within, max_points)
            assert len(series.points) >= max_points // 2
            assert series.points[0].min == series.points[0].max
            assert series.bucketed


VALUES = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf])
BATCH = st.dictionaries(st.integers(0, 60), VALUES, min_size=1, max_size=40)


@given(
    attempts=st.lists(st.tuples(st.integers(-1, 60), st.lists(BATCH, max_size=4), st.booleans()), min_size=1, max_size=3),
    ranges=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), min_size=6, max_size=6),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_where_a_point_is_stored_does_not_show(
    ledger: Ledger,
    attempts: list[tuple[int, list[dict[int, float]], bool]],
    ranges: list[tuple[int, int]],
    small_chunks: None,
) -> None:
    """In rows, in a chunk, or written again there; of one attempt or of several, folded after their end or not yet."""
    run, claim = started_run(ledger)
    shown: dict[int, float] = {}
    for no, (resumed_from, batches, fold_after) in enumerate(attempts):  # the first begins at zero
        if no:
            until(lambda: ledger.dispatch() == ["data"], "the retry")
            claim = ledger.begin(run, "data", "w", resumed_from_step=resumed_from)
            shown = {step: value for step, value in shown.items() if step <= resumed_from}
        for drawn in batches:
            batch = {step: value for step, value in drawn.items() if step >= resumed_from or not no}
            ledger.report(claim.fence, *[metric(step, loss=spelled(value)) for step, value in batch.items()])
            shown |= batch
        ledger.finish(claim.fence, Reason.KILLED if no + 1 < len(attempts) else Reason.BAD_INPUT)
        if fold_after:
            while folding.tick(ledger.factory):
                pass
    for max_points in (3, 5, 12, 200):
        for first, last in [(0, 60), *ranges]:
            within = {step: value for step, value in shown.items() if first <= step <= last}
            series = read(ledger, run, keys=["loss"], max_points=max_points, from_step=first, to_step=last).series
            if within:
                check(series[0].points, within, max_points)
            else:
                assert series == []


def test_the_loop_folds_what_ended_attempts_left_in_rows(ledger: Ledger) -> None:
    """Also the rows and the buckets of releases before chunks, a few at a time."""
    run, claim = started_run(ledger)
    ledger.report(claim.fence, *[metric(i, loss=float(i)) for i in range(100)])
    assert folding.tick(ledger.factory) == 0  # the attempt still writes
    ledger.finish(claim.fence, Reason.BAD_INPUT)
    with ledger.factory.begin() as s:
        fields = {"stage_id": claim.fence.stage_id, "attempt_no": 1, "key": "loss", "t": datetime.now(UTC), "value": 1.0}
        s.add_all(MetricPoint(step=i, **fields) for i in range(100, 1000))
        s.add(MetricBucket(bucket=3, step=127, nonfinite=0, min=1.0, max=1.0, **fields))
    before = one(ledger, run, 1000)
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "AT_ONCE", 400)
        while folded := folding.tick(ledger.factory):
            counts.append(folded)
            assert one(ledger, run, 1000) == before
    assert counts == [400, 400, 200]
    with ledger.factory.begin() as s:
        assert s.scalars(select(MetricPoint)).all() == s.scalars(select(MetricBucket)).all() == []
        points = select(MetricChunk.points).where(MetricChunk.size == 1).order_by(MetricChunk.first_step)
        assert s.scalars(points).all() == counts


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "FOLD_AT", 5)
    monkeypatch.setattr(chunks, "LONGEST", 9)
    monkeypatch.setattr(chunks, "SIZES", (1, 2, 4, 8))
    monkeypatch.setattr(metrics_module, "SIZES", (1, 2, 4, 8))


def check(found: Sequence[PointView], shown: dict[int, float], max_points: int) -> None:
    """Each bucket tells all that is to be known of the points from the bucket before it on."""
    assert len(found) <= max_points
    assert (found[0].step, found[-1].step) == (min(shown), max(shown))
    begin = -1
    for point in found:
        values = [v for step, v in shown.items() if begin < step <= point.step]
        finite = [v for v in values if math.isfinite(v)]
        assert (point.min, point.max) == (min(finite, default=None), max(finite, default=None))
        assert point.nonfinite == len(values) - len(finite)
        assert point.last == (shown[point.step] if math.isfinite(shown[point.step]) else None)
        begin = point.step


def spelled(value: float) -> float | str:
    """The value as events spell it."""
    return value if math.isfinite(value) else str(value)

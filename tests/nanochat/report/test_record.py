"""What a stage recorded: curves of bounded size over all attempts, warnings, samples and artifacts."""

import hashlib
import math
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.contract.contract import write_json
from nanochat.contract.events import EventLog
from nanochat.report import curves, record
from nanochat.report.curves import BUCKETS
from tests.nanochat.report.runs import attempt, card, falling, model_artifact, report_of


def curve(recorded: record.StageRecord, key: str = "loss") -> curves.Curve:
    return next(c for c in recorded.curves if c.key == key)


def test_a_short_curve_is_kept_as_it_is(tmp_path: Path) -> None:
    found = curve(record.of(attempt(tmp_path, 1, [(0, {"loss": 3.0}), (5, {"loss": 2.0}), (10, {"loss": 1.0, "mfu": 40.0})])))
    assert (found.steps, found.last, found.low, found.high) == ([0, 5, 10], [3.0, 2.0, 1.0], [], [])


def test_values_that_are_not_finite_are_holes_and_what_was_not_measured_is_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step, loss in enumerate([2.0, math.nan, math.inf, 1.0]):
        log.emit("metric", step=step, values={"loss": loss, "usd": None})
    recorded = record.of(tmp_path)
    assert [c.key for c in recorded.curves] == ["loss"]
    assert curve(recorded).last == [2.0, None, None, 1.0]
    assert curve(recorded).nonfinite == [1, 2]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 10**6), st.floats(-1e6, 1e6), min_size=1, max_size=600))
def test_a_long_curve_keeps_its_ends_and_every_extreme(points: dict[int, float]) -> None:
    found = curves.of("loss", points)
    assert len(found.steps) <= BUCKETS
    assert all(a < b for a, b in pairwise(found.steps))
    assert (found.steps[0], found.steps[-1]) == (min(points), max(points))
    assert math.isclose(max(found.drawn), max(points.values()), rel_tol=1e-5, abs_tol=1e-9)
    assert math.isclose(min(found.drawn), min(points.values()), rel_tol=1e-5, abs_tol=1e-9)


def test_a_resumed_attempt_supersedes_what_lies_beyond_its_checkpoint(tmp_path: Path) -> None:
    attempt(tmp_path, 1, [(s, {"loss": 10.0}) for s in range(1, 9)], ended="the machine stopped")
    attempt(tmp_path, 2, [(5, {"loss": 99.0}), (6, {"loss": 99.0})])  # beside the line: nothing goes on from it
    newest = attempt(tmp_path, 3, [(s, {"loss": 1.0}) for s in range(5, 8)], resumed_from="attempt-1/checkpoints/step_000004")
    recorded = record.of(newest)
    assert list(zip(curve(recorded).steps, curve(recorded).last, strict=True)) == [
        *[(s, 10.0) for s in range(1, 5)],
        *[(s, 1.0) for s in range(5, 8)],
    ]
    assert [(a.no, a.resumed_from_step, a.ended) for a in recorded.attempts] == [
        (1, None, "the machine stopped"),
        (2, None, "its processes were killed"),
        (3, 4, ""),
    ]


def test_an_attempt_that_went_on_from_another_run_has_its_own_points_only(tmp_path: Path) -> None:
    attempt(tmp_path / "a", 1, falling(10))
    mine = attempt(tmp_path / "b", 1, falling(20, 11), resumed_from="../a/attempt-1/checkpoints/step_000010")
    assert curve(record.of(mine)).steps == list(range(11, 21))


def test_attempts_at_other_settings_are_no_part_of_the_run(tmp_path: Path) -> None:
    for no, lr in ((1, 0.1), (2, 0.9), (3, 0.1), (4, 0.1)):
        folder = attempt(tmp_path, no, [(1, {"loss": 9.0})], figures={} if no == 1 else None)
        write_json(folder / "stage.json", {"attempt": no, "config": {"lr": lr}, "inputs": {}})
        log = EventLog(folder / "events.jsonl")
        log.emit("warning", code="slow", message=f"at {lr}")
        log.close()
    made = record.of(tmp_path / "attempt-4")
    assert [found.no for found in made.attempts] == [3, 4]
    assert [(found.message, found.count) for found in made.warnings] == [("at 0.1", 2)]


def test_warnings_are_counted_and_samples_of_a_few_steps_are_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for step in range(0, 100, 10):
        log.emit("sample", step=step, prompt="Gold is", text=f" {step}" + "x" * 9000)
        log.emit("warning", code="fetch_retry", message="the server did not answer")
    recorded = record.of(tmp_path)
    assert [s.step for s in recorded.samples] == [0, 30, 60, 90]
    assert max(len(s.text) for s in recorded.samples) == record.TEXT
    assert [(w.code, w.count) for w in recorded.warnings] == [("fetch_retry", 10)]


def test_artifacts_are_recorded_with_their_digests(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 1, falling(3))
    made = model_artifact(tmp_path / "model", folder)
    found = record.of(folder).artifacts[0]
    assert (found.name, found.sha256, found.bytes, found.files) == ("model", made.sha256, 7, 1)
    assert found.weights_sha256 == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("ended", ["Paused on request.", "the machine stopped"])
def test_why_an_attempt_ended_is_one_sentence(tmp_path: Path, ended: str) -> None:
    stage = tmp_path / "base_train"
    attempt(stage, 1, [(1, {"loss": 10.0})], ended=ended)
    newest = attempt(stage, 2, [(2, {"loss": 9.0})])
    found = card("base_train", 0, {})
    found.record = record.of(newest)
    assert report_of([found]).notes[-1].text.endswith(f"Attempt 1 had ended: {ended.removesuffix('.')}.")

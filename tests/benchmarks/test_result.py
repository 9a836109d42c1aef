"""When a benchmark says "met": the tables in the documents repeat its verdict."""

import pytest

from benchmarks.result import measurement


@pytest.mark.parametrize(
    ("value", "better", "peer_value", "must", "ratio", "ok"),
    [
        (2.0, "lower", 10.0, 4.0, 5.0, True),
        (2.0, "lower", 7.0, 4.0, 3.5, False),
        (300.0, "higher", 20.0, 15.0, 15.0, True),
        (300.0, "higher", 30.0, 15.0, 10.0, False),
        (300.0, "higher", None, 15.0, None, None),  # nothing is judged by a peer that could not run
        (300.0, "higher", 30.0, None, 10.0, None),
    ],
)
def test_a_peer_is_beaten_by_the_ratio_asked_for(value, better, peer_value, must, ratio, ok):
    made = measurement("x", value, "s", better, "peer", peer_value, must)
    assert (made["ratio"], made["ok"]) == (ratio, ok)


@pytest.mark.parametrize(("value", "better", "ok"), [(44.0, "lower", True), (61.0, "lower", False), (61.0, "higher", True)])
def test_without_a_peer_the_value_is_judged(value, better, ok):
    assert measurement("x", value, "GiB", better, must=60)["ok"] is ok

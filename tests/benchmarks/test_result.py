"""What a benchmark calls met: the tables of the documents repeat it."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.result import ROOT, row


@pytest.mark.parametrize(
    ("value", "better", "peer_value", "must", "ratio", "ok"),
    [
        (2.0, "lower", 10.0, 4.0, 5.0, True),
        (2.0, "lower", 7.0, 4.0, 3.5, False),
        (300.0, "higher", 20.0, 15.0, 15.0, True),
        (300.0, "higher", 30.0, 15.0, 10.0, False),
        (300.0, "higher", None, 15.0, None, None),  # a peer that could not run judges nothing
        (300.0, "higher", 30.0, None, 10.0, None),
    ],
)
def test_a_peer_is_beaten_by_the_ratio_asked_for(value, better, peer_value, must, ratio, ok):
    made = row("x", value, "s", better, "peer", peer_value, must)
    assert (made["ratio"], made["ok"]) == (ratio, ok)


@pytest.mark.parametrize(("value", "better", "ok"), [(44.0, "lower", True), (61.0, "lower", False), (61.0, "higher", True)])
def test_without_a_peer_the_value_is_judged(value, better, ok):
    assert row("x", value, "GiB", better, must=60)["ok"] is ok


def test_training_is_measured_on_a_cpu_too():
    env = {**os.environ, "QUICK": "1", "SECONDS": "0.1", "JOBS": "bf16"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train"], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bench"], result["rows"][0]["name"]) == ("train", "bf16")
    assert result["rows"][0]["value"] > 0

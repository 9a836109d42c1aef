"""`nanochat local-run`: it stops on a signal, keeps what is done and continues from there, and refuses bad input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nanochat.contract.contract import MANIFEST, SPEC, Exit
from nanochat.local.run import line_of
from tests.waiting import until

SMALL = {"data.source.max_chars": 300_000, "data.tok_chars": 200_000, "base.num_iterations": 4000}


def start(home: Path, overrides: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "nanochat.local.run", "tiny", "--out", str(home / "run")]
    command += ["--overrides", json.dumps(overrides)]
    env = {**os.environ, "NANOCHAT_HOME": str(home)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_stopped_run_is_resumable_and_keeps_what_was_done(tmp_path: Path) -> None:
    first = start(tmp_path, SMALL)
    until(lambda: (tmp_path / "run" / "tok_train" / "attempt-1" / MANIFEST).exists(), "tok_train", 180)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == Exit.STOPPED, said
    assert "tok_train      started" in said
    assert f"the report is in {tmp_path / 'run' / 'report.html'}" in said
    assert "The run was stopped." in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")

    second = start(tmp_path, SMALL)
    assert second.stdout is not None
    begin = second.stdout.readline()  # by then it takes signals; tok_eval may have been done before
    until(
        lambda: (tmp_path / "run" / "tok_eval" / "attempt-1" / MANIFEST).exists() or second.poll() is not None, "tok_eval", 180
    )
    second.send_signal(signal.SIGTERM)
    said = begin + second.stdout.read()
    second.wait(timeout=120)
    assert "data           kept from before" in said
    assert "tok_train      kept from before" in said
    assert not (tmp_path / "run" / "data" / "attempt-2").exists()

    third = start(tmp_path, {**SMALL, "tokenizer.vocab_size": 1024})
    changed = tmp_path / "run" / "tok_train" / "attempt-2" / SPEC
    until(lambda: changed.exists() or third.poll() is not None, "tok_train", 180)
    third.send_signal(signal.SIGTERM)
    said, _ = third.communicate(timeout=120)
    assert "tok_train      started anew: tokenizer.vocab_size is 1024, was 2048" in said


def test_a_second_sigterm_leaves_no_process(tmp_path: Path) -> None:
    """`timeout` sends two."""
    first = start(tmp_path, {"data.source.max_chars": 300_000, "data.tok_chars": 200_000})
    events = tmp_path / "run" / "data" / "attempt-1" / "events.jsonl"
    until(lambda: events.exists() or first.poll() is not None, "the first stage", 60)
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    for _ in range(3):
        first.send_signal(signal.SIGTERM)
        until(lambda: (tmp_path / "run" / "data" / "attempt-1" / "stop").exists() or first.poll() is not None, "the stop", 30)
    said, _ = first.communicate(timeout=90)
    assert first.returncode == Exit.STOPPED, said
    assert [child for child in children if child.is_running()] == []


def test_stages_die_with_a_killed_local_run(tmp_path: Path) -> None:
    first = start(tmp_path, {"data.source.max_chars": 300_000, "data.tok_chars": 200_000})
    events = tmp_path / "run" / "data" / "attempt-1" / "events.jsonl"
    until(lambda: events.exists() or first.poll() is not None, "the first stage", 60)
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.communicate(timeout=60)
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert (len(gone), alive) == (len(children), [])


def test_a_metric_is_shown_by_its_short_name_with_a_figure_that_people_can_read() -> None:
    values = {"loss": 4.21773, "tok_per_s": 10_240.4, "mfu": float("nan"), "lrm": 1.0, "other": 1_234_567, "note": "text"}
    line = line_of({"kind": "metric", "step": 3, "values": values})
    assert line == "loss 4.218  tok/s 10,240  MFU nan  lrm 1  other 1,234,567"


@pytest.mark.parametrize(
    ("overrides", "code", "says"),
    [
        ({"data.source": {"kind": "folder", "path": "/no/such/folder"}}, Exit.BAD_INPUT, "data.source"),
        ({"from.model": "/no/such/folder"}, Exit.BAD_INPUT, "from.model: no folder /no/such/folder"),
        ({"base.colour": 1}, Exit.BAD_INPUT, "base.colour: unknown field"),
        ({"base.total_batch_size": 4096 + 256}, Exit.BAD_INPUT, "base.total_batch_size"),
        (["nonsense"], 2, "--overrides: not a JSON object"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path: Path, overrides: object, code: int, says: str) -> None:
    process = start(tmp_path, overrides)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code
    assert says in said
    assert not (tmp_path / "run").exists()

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
from nanochat.local.lines import line_of
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
    values = {
        "loss": 4.21773,
        "tok_per_s": 10_240.4,
        "mfu": float("nan"),
        "lrm": 1.0,
        "mem_gib": 3.25,
        "other": 1_234_567,
        "note": "text",
    }
    line = line_of({"kind": "metric", "step": 3, "values": values})
    assert (
        line
        == "step 3  loss 4.218 nats/token  10,240 tok/s  MFU nan % of the bf16 peak  lrm 1  memory 3.25 GiB  other 1,234,567"
    )


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"name": "bytes per token: news", "values": {"ours": 2.751, "gpt2": 4.0}},
            "bytes per token, news: ours 2.751, gpt2 4",
        ),
        (
            {"name": "arc_easy", "values": {"accuracy": 0.2734, "n": 2376, "stderr": 0.0091}},
            "ARC-Easy: accuracy 27.3 %, 2,376 questions, standard error 0.9 %",
        ),
        ({"name": "arc_easy", "values": {"accuracy": 1.0, "n": 1, "stderr": 0.0}}, "ARC-Easy: accuracy 100.0 %, 1 question"),
        ({"name": "chatcore", "values": {"chatcore": 0.08342}}, "ChatCORE 0.08342"),
        ({"name": "core", "step": 2000, "values": {"core": 0.2219}}, "CORE 0.2219 at step 2,000"),
        ({"name": "core", "values": {}}, "CORE: no figure"),
        ({"name": "bpb", "values": {"train": 0.9, "val": 0.95}}, "bits per byte: train 0.9, validation 0.95"),
        ({"name": "chat", "step": 40, "values": {"arc_easy": 0.25}}, "chat tasks at step 40: ARC-Easy 25.0 %"),
        (
            {"name": "core/hellaswag", "values": {"accuracy": 0.5, "centered": 0.333}},
            "CORE task hellaswag: accuracy 50.0 %, centered accuracy 0.333",
        ),
    ],
)
def test_an_evaluation_is_told_in_words(event: dict[str, object], line: str) -> None:
    assert line_of({"kind": "eval", **event}) == line


def test_what_to_do_stands_apart_from_what_is_wrong() -> None:
    assert line_of({"kind": "error", "message": "it returned nan", "hint": "mend it"}) == "error: it returned nan; mend it"
    assert line_of({"kind": "error", "message": "it returned nan", "hint": ""}) == "error: it returned nan"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"done": 0, "total": 21_400, "unit": "step", "eta_s": None}, "0 of 21,400 steps"),
        ({"done": 0, "total": 21_400, "unit": "step", "eta_s": 0.0}, "0 of 21,400 steps"),
        ({"done": 100, "total": 21_400, "unit": "step", "eta_s": 95.2}, "100 of 21,400 steps, 95 s left"),
        ({"done": 3, "total": None, "unit": "shard", "note": "from the hub"}, "3 shards, from the hub"),
        ({"done": 1, "total": 1, "unit": "text"}, "1 of 1 text"),
        ({"done": 1, "total": 8, "unit": "batch"}, "1 of 8 batches"),
    ],
)
def test_progress_tells_the_time_left_once_it_is_known(event: dict[str, object], line: str) -> None:
    assert line_of({"kind": "progress", **event}) == line


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

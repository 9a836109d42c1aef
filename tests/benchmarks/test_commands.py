"""Every benchmark as a person starts it: `python -m benchmarks.<name>`, and `make bench-<name>` in front of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.process import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
NAMES = sorted(path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py"))

# Options that are wrong only together with others, or in a way that no single value shows.
BAD = [
    ("control", ["--readers", "0"], "--readers"),
    ("control", ["--points", "1e7"], "--points"),
    ("curves", ["--more", "[1]"], "--more"),
    ("curves", ["--more", '{"x": 1}'], "--more"),
    ("curves", ["--more", '{"x": {"model.value_embed": false}}'], "model.value_embed"),
    ("curves", ["--jobs", "speedrun,x", "--more", '{"y": {}}'], "'x'"),
    ("curves", ["--batch", "100", "--seq-len", "128"], "base."),
    ("curves", ["--seeds", "1,two"], "--seeds"),
    ("curves", ["--steps", "0"], "--steps"),
    ("engine", ["--batches", "1,0"], "--batches"),
    ("engine", ["--only", "decode,encode"], "'encode'"),
    ("eval", ["--share", "1.5"], "--share"),
    ("eval", ["--only", "core,chats"], "'chats'"),
    ("eval", ["--data", str(ROOT / "docs")], "core.yaml"),
    ("rl", ["--samples", "0"], "--samples"),
    ("serving", ["--rates", "0.5,-1"], "--rates"),
    ("serving", ["--rates", "80"], "share"),
    ("serving", ["--only", "http,htpp"], "'htpp'"),
    ("train", ["--jobs", "bf16,fp9"], "'fp9'"),
    ("train", ["--jobs", "scaling"], "bf16"),
    ("train", ["--seconds", "nan"], "--seconds"),
    ("train", ["--seconds", "-1"], "--seconds"),
    ("tokenizer", ["--threads", "1.5"], "--threads"),
    ("tokenizer", ["--data", str(ROOT / "docs")], "parquet"),
    ("loader", ["--data", str(ROOT / "docs")], "parquet"),
    ("saving", ["--folder", str(ROOT / "Makefile")], "--folder"),
]


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def assert_refused(name: str, options: list[str], word: str) -> None:
    done = run(name, *options)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "", "work began before the options were checked"
    assert re.fullmatch(rf"python -m benchmarks\.{name}: .+\n", done.stderr), done.stderr
    assert word in done.stderr


def test_the_page_lists_every_benchmark() -> None:
    assert {"curves", "engine", "eval", "loader", "rl", "saving", "serving", "tokenizer", "train"} <= set(NAMES)
    assert set(re.findall(r"^\| `make bench-([a-z]+)` \|", PAGE, re.M)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_names_the_common_options_and_no_option_takes_nonsense(name: str) -> None:
    text = run(name, "--help").stdout
    options = set(re.findall(r"^  (--[a-z-]+)", text, re.M))
    assert {"--quick", "--record", "--commit"} <= options
    assert all(f"`{option}" in PAGE for option in options), "docs/benchmarks.md lacks an option"
    with_value = re.findall(r"^  (--[a-z-]+) [A-Z]", text, re.M)
    assert "--commit" in with_value
    for option in with_value:
        assert_refused(name, [option, "no such thing"], option if option != "--jobs" else "'no such thing'")
    assert_refused(name, ["--no-such-option"], "--no-such-option")
    assert_refused(name, ["no such argument"], "no such argument")


@pytest.mark.parametrize(
    ("name", "options", "word"), BAD, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_bad_option_is_one_line_before_any_work(name: str, options: list[str], word: str, tmp_path: Path) -> None:
    if name == "curves":
        options = [*options, "--data", str(shards(tmp_path))]
    assert_refused(name, options, word)


def test_curves_without_text_says_what_to_give(tmp_path: Path) -> None:
    assert_refused("curves", ["--data", str(tmp_path / "missing")], "missing")


def shards(folder: Path) -> Path:
    from nanochat.data.shards import write_shard

    for number in range(2):
        write_shard(folder / f"shard_{number}.parquet", ["some text"])
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_make_turns_quick_and_record_into_options(name: str) -> None:
    # The tests themselves may run under make, whose variables would reach the one called here.
    env = {
        key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key not in ("QUICK", "RECORD", "ARGS")
    }

    def recipe(*variables: str) -> str:
        command = ["make", "-n", "--no-print-directory", f"bench-{name}", *variables]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1].strip()

    assert recipe().split()[-2:] == ["-m", f"benchmarks.{name}"]
    assert recipe("QUICK=1", "RECORD=1", "ARGS=--commit 0123abc").endswith(
        f"benchmarks.{name} --quick --record --commit 0123abc"
    )
    assert recipe("QUICK=0", "RECORD=").split()[-1] == f"benchmarks.{name}"


def test_no_benchmark_reads_an_environment_variable_of_ours() -> None:
    for path in (ROOT / "benchmarks").rglob("*.py"):
        read = re.findall(r"""(?:environ(?:\.get\(|\.setdefault\(|\[)|getenv\()["'](\w+)""", path.read_text(encoding="utf-8"))
        assert set(read) <= {"CUDA_VISIBLE_DEVICES"}, path


def test_training_is_measured_on_a_cpu_too() -> None:
    done = run("train", "--quick", "--seconds", "0.1", "--jobs", "bf16", "--commit", "0123abc")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["bench"], result["commit"], result["rows"][0]["name"]) == ("train", "0123abc", "bf16")
    assert result["rows"][0]["value"] > 0


def test_the_engine_is_measured_on_a_cpu_too() -> None:
    done = run("engine", "--quick", "--only", "greedy,decode,ttft", "--commit", "0123abc")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert rows["greedy, 4 at once: largest gap to the plain model's best logit"]["ok"]
    assert rows["4 streams together"]["peer"] == "1 stream"
    assert all(name in done.stdout.partition("{")[0] for name in rows), "rows are printed before the result"


def test_evaluations_are_measured_on_a_cpu_too() -> None:
    done = run("eval", "--quick", "--depth", "1", "--only", "chat", "--commit", "0123abc")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert rows["chat_eval, gsm8k: 1,319 problems"]["peer"] == "one at a time"
    assert rows["chat_eval, all 19,329 problems"]["value"] > 0


def test_reinforcement_learning_is_measured_on_a_cpu_too() -> None:
    done = run("rl", "--quick", "--at-a-time", "2", "--commit", "0123abc")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert rows["rollouts"]["peer"] == "question by question, 2 samples at a time"
    assert rows["rollouts"]["ratio"] > 1, "all questions together are faster than one after another"
    assert 1 <= rows["mean length of an answer"]["value"] <= 32
    shares = [row["value"] for name, row in rows.items() if name.startswith("share of a step")]
    assert sum(shares) == pytest.approx(100, abs=0.01)
    assert all(name in done.stdout.partition("{")[0] for name in rows), "rows are printed before the result"


def test_the_control_plane_is_measured_under_load() -> None:
    done = run("control", "--quick", "--runs", "3", "--points", "1000", "--readers", "2", "--no-peer", "--commit", "0123abc")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert {"list of 200 runs, p95", "page of a run, p95", "event to each of 2 readers, p95"} <= set(rows)
    assert rows["ingest of metric points"]["value"] > 0


def test_the_service_is_measured_under_load() -> None:
    done = run("serving", "--quick", "--concurrency", "2", "--commit", "0123abc")
    assert done.returncode == 0, done.stdout[-3000:]
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["rows"]}
    assert rows["32 requests at once"]["peer"] == "the engine alone"
    assert rows["2 clients"]["requests"] == 20
    assert rows["2 clients"]["refused"] == 0
    assert 1 <= rows["2 clients"]["tokens_per_piece"] < 1.5, "each token is sent when it is made"
    assert 0 < rows["2 clients: first token, p50"]["value"] <= rows["2 clients: first token, p99"]["value"]
    assert any(name.endswith("requests/s: goodput") for name in rows)

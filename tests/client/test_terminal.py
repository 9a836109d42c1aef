"""What a person sees on a terminal and what a program reads, against a real API: as a process where that makes the difference."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.client.conftest import Here
from tests.client.scripted import scripted
from tests.client.terminal import COMMAND, ROOT, Done, on_terminal, piped, terminal

RUN_ID = re.compile(r"r_[0-9a-f]{16}\b")
NAME = "a long name for an experiment with a model of depth four"
NASTY = "[red]x[/]<b>"


@pytest.fixture(scope="module")
def runs(api: Api, worker: ManualWorker) -> list[str]:
    """Ids of three runs in the middle of training; the last has failed."""
    ids = []
    with api.client() as client:
        for number, name in enumerate(("first", NAME, NASTY)):
            run = client.submit("tiny", {"base.num_iterations": 20 + number}, name=name)
            for stage in ("data", "tok_train", "tok_eval"):
                worker.complete(run.id, stage)
            claim = worker.claim(run.id, "base_train")
            worker.report(claim, "progress", done=0, total=100, unit="step", eta_s=0)
            for step in range(1, 13) if number else ():
                values = {"loss": 5 * math.exp(-step / 9), "tok_per_s": 10_240.0, "mfu": 41.25}
                worker.report(claim, "metric", step=step, values=values)
            if number == 2:
                worker.finish(claim, Reason.BAD_INPUT, "no text in /data")
            ids.append(run.id)
    return ids


@pytest.fixture(autouse=True)
def surroundings(environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("NO_COLOR")


@pytest.mark.parametrize("columns", [60, 120])
def test_everything_fits_the_terminal_and_no_id_is_cut(runs: list[str], columns: int, here: Here) -> None:
    seen = {words[0]: here(*words, columns=columns) for words in (("metrics", runs[1]), ("compare", *runs), ("leaderboard",))}
    seen["ps"] = on_terminal("ps", columns=columns)
    for command, done in seen.items():
        assert done.code == 0, done.out
        assert done.widest <= columns, (command, done.out)
    for command in ("ps", "compare"):
        assert set(RUN_ID.findall("\n".join(seen[command].lines))) == set(runs)
    assert any("published" in line or "GPT-2" in line for line in seen["leaderboard"].lines)
    assert "▇" in seen["metrics"].out or columns == 60
    assert any("nats per token" in line for line in seen["metrics"].lines)
    assert any("base.num_iterations" in line for line in seen["compare"].lines)
    assert any(NASTY in line for line in seen["ps"].lines)  # a name is text, not markup


def test_piped_lists_are_separated_by_tabs_and_whole(runs: list[str], here: Here) -> None:
    done = piped("ps")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    head, *rows = (line.split("\t") for line in done.out.splitlines())
    by_id = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert set(runs) <= set(by_id)
    assert by_id[runs[1]]["name"] == NAME
    assert by_id[runs[2]]["status"].endswith("FAILED")
    assert by_id[runs[0]]["time left"] != "0s"  # at step 0 the stage does not know
    assert re.fullmatch(r"\d+ %", by_id[runs[0]]["done"])
    assert here("ps", "-q").out.split()[:3] == runs[::-1]


def test_colours_can_be_switched_off(runs: list[str]) -> None:
    color = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert color.search(on_terminal("ps").out)
    assert not color.search(on_terminal("ps", "--no-color").out)
    assert not color.search(on_terminal("ps", NO_COLOR="1").out)


def test_times_are_local_or_utc(runs: list[str]) -> None:
    local, utc = (piped("show", runs[0], *more, TZ="Asia/Tokyo").out for more in ((), ("--utc",)))
    hours = [int(m[1]) for out in (local, utc) if (m := re.search(r"created \d{4}-\d\d-\d\d (\d\d):", out))]
    assert (hours[0] - hours[1]) % 24 in (9, 10)
    assert " UTC" in utc
    assert " UTC" not in local


def test_cancel_asks_on_a_terminal_and_takes_no_for_an_answer(api: Api, here: Here) -> None:
    with api.client() as client:
        run = client.submit("tiny", name="to cancel")
        with terminal("cancel", "to cancel") as asked:
            asked.wait_for("[y/N]")
            asked.type("n\n")
            done = asked.end()
        assert done.code == 1
        assert "Nothing was changed" in done.out
        assert not client.run(run.id).is_finished
        with terminal("cancel", "to cancel") as asked:
            asked.wait_for("[y/N]")
            asked.type("y\n")
            assert asked.end().code == 0
        assert client.run(run.id).status == "CANCELLED"
        assert here("delete", "to cancel", "--yes", columns=80).code == 0


def test_a_refused_field_is_told_once() -> None:
    done = piped("submit", "tiny", "--set", "base.x=1")
    assert done.code == 2
    assert done.err.count("unknown field") == 1


def test_watching_while_the_api_is_down_says_so_within_three_seconds_and_goes_on() -> None:
    with scripted() as down:
        port = down.server_port
    run = {"id": "r_1", "name": "n", "recipe": "tiny", "status": "SUCCEEDED", "created_at": "2026-01-01T00:00:00Z"}
    with terminal("watch", "r_1", NANOCHAT_API_URL=f"http://127.0.0.1:{port}") as watching:
        while not watching.shown:  # Python has started when it hides the cursor
            watching._read(0.1)
        watching.wait_for("trying again", 3)
        with scripted({}, {**run, "config": {}, "stages": []}, port=port):
            watching.wait_for("SUCCEEDED", 20)
            assert watching.end().code == 0


def test_the_live_list_stays_with_its_age_while_the_api_is_down() -> None:
    run = {"id": "r_1", "name": "n", "recipe": "tiny", "status": "RUNNING", "created_at": "2026-01-01T00:00:00Z"}
    with ExitStack() as up:
        server = up.enter_context(scripted({"items": [{**run, "stages_done": 0, "stages_total": 1}]}))
        with terminal("ps", "--watch", NANOCHAT_API_URL=server.url) as watching:
            watching.wait_for("r_1")
            up.close()
            watching.wait_for("what you see is that old", 10)
            watching.wait_for("r_1")
            watching.type("\x03")
            assert watching.end().code == 130


def test_ctrl_c_ends_a_watch_with_130_and_a_hint(runs: list[str]) -> None:
    with terminal("watch", runs[0]) as watching:
        watching.wait_for("base_train")
        watching.type("\x03")
        done = watching.end()
    assert done.code == 130
    assert f"nanochat watch {runs[0]}" in done.out
    assert "Traceback" not in done.out


def test_ctrl_c_anywhere_else_is_130_without_a_traceback() -> None:
    with scripted() as silent, terminal("ps", NANOCHAT_API_URL=silent.url) as asking:
        asking.process.send_signal(signal.SIGINT)
        done = asking.end()
    assert done.code in (130, -signal.SIGINT)  # the latter: before Python was up
    assert "client/" not in done.out


def test_ctrl_c_while_it_is_loading_is_silent_too() -> None:
    script = "import os, signal\nfrom client.__main__ import Silent\n{}\nwith Silent():\n    os.kill(os.getpid(), signal.SIGINT)\nprint('went on')"
    ended, ignored = (
        subprocess.run(
            [sys.executable, "-c", script.format(first)], cwd=ROOT / "libs", capture_output=True, text=True, timeout=30
        )
        for first in ("", "signal.signal(signal.SIGINT, signal.SIG_IGN)")
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
    assert (ignored.returncode, ignored.stdout) == (0, "went on\n")
    heavy = "import sys, client.__main__; print([name for name in ('contextlib', 'httpx', 'pydantic', 'typer', 'typing') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT / "libs", capture_output=True, text=True, timeout=30)
    assert loaded.stdout == "[]\n", loaded.stderr  # nothing takes long before Ctrl-C is dealt with


def test_the_list_is_shown_live_and_submitting_says_what_to_expect(runs: list[str], here: Here) -> None:
    with terminal("ps", "--watch") as watching:
        watching.wait_for(runs[0])
        watching.type("\x03")
        assert watching.end().code == 130
    submitted = here("submit", "tiny", "--name", "expected", columns=80)
    assert submitted.code == 0, submitted.out
    assert "4.19M parameters" in submitted.out
    assert "nanochat watch" in submitted.out
    assert here("ps", "--watch").code == 2


@pytest.mark.parametrize("arguments", [("ps", "--json"), ("events", "{run}"), ("doctor", "--json")])
def test_a_closed_pipe_is_quiet(runs: list[str], arguments: tuple[str, ...]) -> None:
    command = [*COMMAND, *(part.format(run=runs[0]) for part in arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_empty_ones(runs: list[str], closed: str) -> None:
    command = f"{shlex.join(COMMAND)} metrics {runs[0]} --csv {closed} && {shlex.join(COMMAND)} chat {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stage,metric") == (">&-" not in closed.split())


def test_what_the_terminal_cannot_show_is_a_question_mark(runs: list[str]) -> None:
    done = piped("events", runs[0], PYTHONIOENCODING="latin-1")
    assert (done.code, done.err) == (0, "")
    assert "PENDING ? QUEUED" in done.out


def test_the_shell_completes_ids_and_names(runs: list[str], here: Here) -> None:
    def offered(*words: str, command: Callable[..., Done] = here) -> list[str]:
        asked = {
            "_NANOCHAT_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(["nanochat", *words]),
            "COMP_CWORD": str(len(words)),
        }
        return command(**asked).out.split("\n")

    assert runs[0] in offered("show", "r_", command=piped)
    assert "first" in offered("metrics", "fir")
    assert "base_train" in offered("retry", "first", "--stage", "base")
    assert "metrics" in offered("metr")


def test_metrics_as_csv_and_json(runs: list[str], here: Here) -> None:
    head, first, *_ = here("metrics", "--csv", "--key", "loss", NAME).out.splitlines()
    assert head == "stage,metric,step,time,min,max,last,nonfinite"
    assert first.startswith("base_train,loss,1,")
    assert json.loads(here("metrics", "--json", NAME).out)["items"][0]["stage"] == "base_train"
    assert os.environ["NANOCHAT_API_URL"] not in head


def test_metrics_of_a_range_of_steps(runs: list[str], here: Here) -> None:
    _, *rows = here("metrics", "--csv", "--key", "loss", "--from-step", "2", "--to-step", "3", NAME).out.splitlines()
    assert [row.split(",")[2] for row in rows] == ["2", "3"]
    assert "No metrics at these steps" in here("metrics", "--from-step", "1000000", NAME).err

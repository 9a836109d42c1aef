"""What a run records reaches the real trackers, without a network; one that fails stops nothing."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from nanochat.contract.contract import EVENTS, SPEC, Exit, StageSpec, write_json
from nanochat.contract.events import EventLog
from nanochat.local.loggers import LOG, copied_to
from nanochat.local.run import main as local_run
from nanochat.loggers.__main__ import main
from nanochat.loggers.follow import at_once, figures, follow
from nanochat.loggers.sinks import SINKS, StageRun
from tests.waiting import until


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nobody"))
    for name in ("TRACKIO_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two attempts of pretraining, of which the second repeats a step, and an evaluation."""
    folder = tmp_path / "first"
    for attempt, steps in ((1, (0, 1, 2)), (2, (2, 3))):
        with_events(
            folder, "base_train", attempt, [("metric", {"step": s, "values": {"loss": 5.0 - s - attempt / 10}}) for s in steps]
        )
    with_events(folder, "chat_eval_sft", 1, [("eval", {"name": "gsm8k", "values": {"accuracy": 0.25, "n": 8}})])
    return folder


def with_events(folder: Path, stage: str, attempt: int, events: list[tuple[str, dict[str, object]]]) -> EventLog:
    out = folder / stage / f"attempt-{attempt}"
    out.mkdir(parents=True)
    spec = StageSpec(
        run="first",
        stage=stage,
        kind=stage,
        attempt=attempt,
        config={"model": {"depth": 4}},
        output_dir=str(out),
        cache_dir="/",
    )
    write_json(out / SPEC, spec.model_dump(mode="json"))
    log = EventLog(out / EVENTS)
    for kind, fields in events:
        log.emit(kind, **fields)
    return log


def needs(name: str) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed (the extra `loggers`)")


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nanochat.loggers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_tensorboard_shows_the_steps_of_the_last_attempt(run: Path):
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert in_a_process(str(run), "--to", "tensorboard").returncode == 0
    shown = EventAccumulator(str(run / "tensorboard/base_train")).Reload()
    assert {point.step: round(point.value, 4) for point in shown.Scalars("loss")} == {0: 4.9, 1: 3.9, 2: 2.8, 3: 1.8}
    judged = EventAccumulator(str(run / "tensorboard/chat_eval_sft")).Reload()
    assert [point.value for point in judged.Scalars("gsm8k/accuracy")] == [0.25]


def test_trackio_has_every_stage_as_a_run(run: Path):
    needs("trackio")
    done = in_a_process(str(run), "--to", "trackio")
    assert done.returncode == 0, done.stderr
    script = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage as s\n"
        "print(json.dumps({r: s.get_logs('nanochat', r) for r in s.get_runs('nanochat')}, default=str))"
    )
    read = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    logs = {name.rpartition("-")[0]: points for name, points in json.loads(read.stdout.splitlines()[-1]).items()}
    assert [(point["step"], point["loss"]) for point in logs["first-base_train"]] == [
        (0, 4.9),
        (1, 3.9),
        (2, 2.9),
        (2, 2.8),
        (3, 1.8),
    ]
    assert logs["first-chat_eval_sft"][0]["gsm8k/accuracy"] == 0.25


@pytest.mark.parametrize("more", [False, True])
def test_a_second_copy_gives_a_tracker_only_what_is_new(run: Path, monkeypatch: pytest.MonkeyPatch, more: bool):
    seen: list[int] = []

    class Counting:
        def __init__(self, stage: StageRun) -> None: ...
        def log(self, step: int, values: Mapping[str, float], at: float) -> None:
            seen.append(step)

        def close(self) -> None: ...

    monkeypatch.setitem(SINKS, "tensorboard", Counting)
    assert follow(run, ["tensorboard"], at_once) == 0
    assert len(seen) == 6
    if more:  # a folder that somebody deleted to train anew
        shutil.rmtree(run / "chat_eval_sft")
        with_events(run, "chat_eval_sft", 1, [("metric", {"step": 7, "values": {"loss": 1.0}})])
    assert follow(run, ["tensorboard"], at_once) == 0
    assert seen[6:] == [7] * more


def test_wandb_keeps_an_offline_run_to_be_sent_later(run: Path):
    needs("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    done = in_a_process(str(run), "--to", "wandb")
    assert done.returncode == 0, done.stderr
    seen: dict[str, list[dict[str, object]]] = {}
    for path in (run / "wandb").glob("offline-run-*/run-*.wandb"):
        name, rows = "", []
        for data in records(path):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
                assert (record.run.project, record.run.run_group) == ("nanochat", "first")
                config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
                assert config.get("model", {"depth": 4}) == {"depth": 4}
            if record.WhichOneof("record_type") == "history":
                rows.append({(i.key or i.nested_key[0]): json.loads(i.value_json) for i in record.history.item})
        seen[name] = rows
    assert [(row["step"], row["loss"]) for row in seen["first-base_train"]] == [
        (0, 4.9),
        (1, 3.9),
        (2, 2.9),
        (2, 2.8),
        (3, 1.8),
    ]
    assert seen["first-chat_eval_sft"][0]["gsm8k/accuracy"] == 0.25


def records(path: Path) -> Iterator[bytes]:
    """The records of W&B's file: seven bytes, then LevelDB's log format (blocks of 32 KiB; checksum, length, part, data)."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little of the block is left for a header
            at += 32768 - at % 32768
            continue
        length, part = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_a_run_is_followed_while_it_goes_on_and_one_that_fails_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    needs("tensorboard")
    needs("trackio")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "first"
    with copied_to(["tensorboard"], folder):
        log = with_events(folder, "base_train", 1, [("metric", {"step": 0, "values": {"loss": 5.0}})])
        until(lambda: list(folder.glob("tensorboard/base_train/*")), "its figures", 60)
        log.emit("metric", step=1, values={"loss": 4.0})
    shown = EventAccumulator(str(folder / "tensorboard/base_train")).Reload()
    assert [point.step for point in shown.Scalars("loss")] == [0, 1]
    assert capsys.readouterr().out == ""

    blocked = tmp_path / "second"
    blocked.mkdir()
    (blocked / "tensorboard").write_text("a file where the folder would be")
    with copied_to(["tensorboard", "trackio"], blocked):
        with_events(blocked, "sft", 1, [("metric", {"step": 0, "values": {"loss": 1.0}})])
    assert "the run itself has all figures" in capsys.readouterr().out
    assert (blocked / LOG).read_text().count("tensorboard failed and is left out from here on") == 1
    assert list((tmp_path / "home/TRACKIO_DIR").glob("*.db"))


def test_it_ends_with_the_run_even_if_that_is_killed(tmp_path: Path):
    needs("tensorboard")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom nanochat.local.loggers import copied_to\n"
        "with copied_to(['tensorboard'], Path(sys.argv[1])): print('up', flush=True); time.sleep(99)"
    )
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children")
    if not children.exists():
        owner.kill()
        pytest.skip("this system does not say which processes are whose children")
    (child,) = children.read_text().split()
    owner.kill()
    owner.wait()
    status = Path(f"/proc/{child}/status")
    until(lambda: not status.exists() or "\nState:\tZ" in status.read_text(), "the end of the process beside it", 60)


def test_a_local_run_is_copied_from_its_start(tmp_path: Path):
    needs("tensorboard")
    command = [sys.executable, "-m", "nanochat.local.run", "tiny", "--out", str(tmp_path / "run"), "--log", "tensorboard"]
    environment = {**os.environ, "NANOCHAT_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until((tmp_path / "run" / LOG).exists, "the process beside the run", 120)
        with_events(tmp_path / "run", "sft", 1, [("metric", {"step": 0, "values": {"loss": 1.0}})])  # long before its turn
        until(lambda: list((tmp_path / "run/tensorboard/sft").glob("events.*")), "its figures", 120)
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode == Exit.STOPPED, said
    assert (tmp_path / "run" / LOG).read_text() == ""


def test_a_line_that_is_no_event_and_a_value_that_is_no_number_do_no_harm(tmp_path: Path):
    needs("tensorboard")
    log = with_events(tmp_path, "sft", 1, [("metric", {"step": 0, "values": {"loss": float("nan")}})])
    with (tmp_path / "sft/attempt-1" / EVENTS).open("ab") as file:
        file.write(b"{broken\n\xff\xff\n")
    log.emit("metric", step=1, values={"loss": 2.0})
    assert follow(tmp_path, ["tensorboard"], at_once) == 0
    assert figures({"kind": "metric", "values": {"a": 1, "b": "nan", "c": True}}) == {"a": 1.0}
    assert figures({"kind": "log", "values": {"a": 1}}) == {}


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    absent = [
        name for name in SINKS if subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True).returncode
    ]
    if not absent:
        pytest.skip("all trackers are installed")
    assert local_run(["tiny", "--out", str(tmp_path / "run"), "--log", absent[0]]) == 64
    assert f"--log: {absent[0]} is not installed; pip install 'nanochat-platform[loggers]'" in capsys.readouterr().err
    assert main([str(tmp_path), "--to", absent[0]]) == 64
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    needs("tensorboard")
    assert main([str(tmp_path), "--to", "tensorboard"]) == 64
    assert f"{tmp_path} is no folder of a run" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []

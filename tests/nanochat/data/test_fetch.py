"""Fetching from a server that fails: the file arrives whole, or the error names it."""

import json
import os
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from nanochat.contract.contract import Exit, StageError, sha256_file
from nanochat.data.fetch import Fetcher, Policy, Stopped, sealed
from nanochat.data.shards import check_shard

from .server import Fault, Server, corrupt, cut_after, ignore_range, stall_after, status

NAME = "shard_00000.parquet"
PATIENT = Policy(attempts=4, timeout=0.3, backoff=0.01, longest_wait=2.0)


def fetch(server: Server, folder: Path, **options: object) -> Path:
    with Fetcher(PATIENT) as fetcher:
        return fetcher.file(f"{server.url}/{NAME}", folder / NAME, check=check_shard, **options)  # type: ignore[arg-type]


def assert_whole(server: Server, path: Path) -> None:
    assert path.read_bytes() == (server.root / NAME).read_bytes()
    assert sealed(path) is not None
    assert sorted(p.name for p in path.parent.iterdir()) == [NAME, f"{NAME}.json", f"{NAME}.lock"]


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "cache")
    assert_whole(server, path)
    fetch(server, tmp_path / "cache")
    assert server.requests[NAME] == 1
    path.write_bytes(path.read_bytes()[:-1])  # a damaged file is fetched again
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert server.requests[NAME] == 2


@pytest.mark.parametrize(
    "faults",
    [
        [cut_after(1000)],
        [cut_after(0), cut_after(10), cut_after(700), cut_after(1)],
        [stall_after(500)],
        [status(500), status(503)],
        [status(429, "0")],
        [corrupt],
        [cut_after(600), corrupt],
        [cut_after(600), ignore_range],
    ],
    ids=["cut", "cut-often", "stall", "500", "429", "corrupt", "corrupt-rest", "no-ranges"],
)
def test_a_passing_fault_is_overcome(server: Server, tmp_path: Path, faults: list[Fault | None]) -> None:
    server.faults[NAME] = list(faults)
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert not server.faults[NAME]


def test_an_interrupted_transfer_is_resumed_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.faults[NAME] = [cut_after(1000), cut_after(500)]
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert [r for _, r in server.ranges] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_file_that_changed_in_between_is_fetched_from_the_start(server: Server, tmp_path: Path) -> None:
    server.faults[NAME] = [cut_after(1000)] * 4
    with pytest.raises(StageError), Fetcher(Policy(attempts=1, backoff=0.01)) as fetcher:
        fetcher.file(f"{server.url}/{NAME}", tmp_path / "cache" / NAME)
    server.faults.clear()
    (server.root / NAME).write_bytes((server.root / "shard_00001.parquet").read_bytes())
    server.etag = '"v2"'
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert server.ranges[-1] == (NAME, "bytes=1000-")  # requested with If-Range, so the server sent the whole new file


def test_a_complete_part_that_was_not_renamed_is_used(server: Server, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "cache")
    path.rename(path.with_name(f"{NAME}.part"))
    note = {"url": f"{server.url}/{NAME}", "validator": server.etag}
    path.with_name(f"{NAME}.part.json").write_text(json.dumps(note))
    assert_whole(server, fetch(server, tmp_path / "cache"))


@pytest.mark.parametrize("retry_after", ["1", "date"])
def test_the_server_says_how_long_to_wait(server: Server, tmp_path: Path, retry_after: str) -> None:
    wanted = formatdate(time.time() + 2, usegmt=True) if retry_after == "date" else retry_after
    server.faults[NAME] = [status(429, wanted)]
    started = time.monotonic()
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert 0.9 <= time.monotonic() - started < 3


def test_a_lasting_fault_is_an_error_that_names_the_file(server: Server, tmp_path: Path) -> None:
    server.faults[NAME] = [corrupt] * 20
    with pytest.raises(StageError, match=rf"{NAME} could not be fetched .* in 4 tries") as error:
        fetch(server, tmp_path / "cache")
    assert error.value.code == "fetch_failed"
    assert error.value.exit_code == Exit.FAILED
    assert not (tmp_path / "cache" / NAME).exists()


def test_a_wrong_digest_is_a_failure(server: Server, tmp_path: Path) -> None:
    right = sha256_file(server.root / NAME)
    with pytest.raises(StageError, match=right):
        fetch(server, tmp_path / "cache", sha256="0" * 64)
    assert server.requests[NAME] == 4
    assert sealed(fetch(server, tmp_path / "cache", sha256=right)) is not None


def test_a_refusal_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"none\.parquet cannot be fetched: HTTP 404") as error, Fetcher(PATIENT) as fetcher:
        fetcher.file(f"{server.url}/none.parquet", tmp_path / "none.parquet")
    assert server.requests["none.parquet"] == 1
    assert error.value.exit_code == Exit.BAD_INPUT


def test_a_stop_ends_a_fetch_that_waits(server: Server, tmp_path: Path) -> None:
    server.faults[NAME] = [status(503, "60")]
    began: list[str] = []
    with pytest.raises(Stopped), Fetcher(PATIENT, warn=began.append, stopped=lambda: bool(began)) as fetcher:
        fetcher.file(f"{server.url}/{NAME}", tmp_path / "cache" / NAME)


def test_a_killed_fetch_is_resumed(server: Server, tmp_path: Path) -> None:
    server.faults[NAME] = [stall_after(1200)]
    path = tmp_path / "cache" / NAME
    program = "import sys, pathlib, nanochat.data.fetch as f; f.Fetcher().file(sys.argv[1], pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", program, f"{server.url}/{NAME}", str(path)])
    part = path.with_name(f"{NAME}.part")
    deadline = time.monotonic() + 20
    while not part.exists() or part.stat().st_size < 1200:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    server.release.set()
    assert_whole(server, fetch(server, tmp_path / "cache"))
    assert server.ranges[-1] == (NAME, "bytes=1200-")

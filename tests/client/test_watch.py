"""Watching a run: a live table on a terminal, plain lines elsewhere, and what happens while the API is down."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import pytest
from rich.console import Console

from client.client import Client
from client.errors import Unreachable
from client.models import Run
from client.text import RunTable
from client.watch import watch
from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.catalog import CATALOG
from tests.client.scripted import scripted


def test_on_a_terminal_a_table_is_redrawn_until_the_run_ends(api: Api, worker: ManualWorker) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    with api.client() as client:
        run = client.submit("tiny")
        claim = worker.claim(run.id, "data")
        worker.report(claim, "progress", done=10, total=40, unit="step", eta_s=95)
        worker.report(claim, "metric", step=10, values={"loss": 4.25, "tok_per_s": 10_240.0})
        statuses: list[str] = []
        watcher = threading.Thread(target=lambda: statuses.append(watch(client, run.id, console=console, poll_s=0.02)))
        watcher.start()
        deadline = time.monotonic() + 20
        while "4.25" not in screen.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.finish(claim, Reason.BAD_INPUT, "no text")
        watcher.join(timeout=20)
    assert statuses == ["FAILED"]
    shown = screen.getvalue()
    for text in ("10/40 step", "10.2k", "1m35s", "▶ RUNNING", "✘ FAILED", "data: BAD_INPUT: no text"):
        assert text in shown, text


def test_elsewhere_every_change_is_one_plain_line(api: Api, worker: ManualWorker) -> None:
    page = io.StringIO()
    console = Console(file=page, width=40)  # narrow, and still no line is broken
    with api.client() as client:
        run = client.submit("tiny", name="plain")
        worker.finish(worker.claim(run.id, "data"), Reason.BAD_INPUT, "no text in any of these folders, give another")
        assert watch(client, run.id, console=console, poll_s=0.02) == "FAILED"
    lines = page.getvalue().splitlines()
    assert lines[0].startswith(f"{run.id} plain: FAILED")
    assert lines[1] == "  ✘ data FAILED, no text in any of these folders, give another"
    assert "\x1b" not in page.getvalue()


FINISHED: dict[str, Any] = {
    "id": "r_1",
    "name": "n",
    "recipe": "tiny",
    "status": "SUCCEEDED",
    "created_at": "2026-01-01T00:00:00Z",
    "config": {},
    "stages": [],
}


def test_watching_goes_on_when_an_api_that_was_down_is_up_again() -> None:
    with scripted() as down:
        port = down.server_port
    statuses: list[str] = []
    with Client(f"http://127.0.0.1:{port}") as client:
        watcher = threading.Thread(
            target=lambda: statuses.append(watch(client, "r_1", console=Console(file=io.StringIO()), poll_s=0.02))
        )
        watcher.start()
        watcher.join(timeout=3)  # longer than the retries of one request, 1.4 s
        assert watcher.is_alive()
        with scripted({}, FINISHED, port=port):
            watcher.join(timeout=20)
    assert statuses == ["SUCCEEDED"]


def test_watching_gives_up_on_an_api_that_stays_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.watch.PATIENCE_S", 0.1)
    with scripted() as down:
        url = down.url
    with Client(url) as client, pytest.raises(Unreachable, match=url):
        watch(client, "r_1", console=Console(file=io.StringIO()))


def test_the_table_holds_a_run_of_any_state() -> None:
    stage = {"kind": "x", "queue": "cpu", "latest": {"loss": "nan"}, "attempts": [], "artifacts": []}
    states = [
        "PENDING",
        "QUEUED",
        "STARTING",
        "RUNNING",
        "STOPPING",
        "BACKOFF",
        "PAUSED",
        "SUCCEEDED",
        "FAILED",
        "CANCELLED",
        "NEW",
    ]
    run = Run.model_validate(
        {
            "id": "r_1",
            "name": "n",
            "recipe": "tiny",
            "status": "RUNNING",
            "created_at": "2026-01-01T00:00:00Z",
            "config": {},
            "stages": [stage | {"name": s.lower(), "status": s} for s in states],
        }
    )
    page = io.StringIO()
    Console(file=page, width=200).print(RunTable(run, CATALOG))
    for state in states:
        assert state in page.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_figure_is_cut_off_on_a_narrow_terminal(width: int) -> None:
    stage = {
        "name": "chat_eval_mid",
        "kind": "chat_eval",
        "queue": "gpu",
        "status": "RUNNING",
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T23:59:00Z",
        "progress": {"done": 21_399, "total": 21_400, "unit": "step", "eta_s": 3_599},
        "latest": {"loss": 10.2451, "tok_per_s": 1_134_567.0, "val_bpb": 2.31234},
    }
    head = {
        "id": "r_0123456789abcdef",
        "name": "n",
        "recipe": "tiny",
        "status": "RUNNING",
        "created_at": "2026-01-01T00:00:00Z",
    }
    page = io.StringIO()
    Console(file=page, width=width).print(RunTable(Run.model_validate({**head, "config": {}, "stages": [stage]}), CATALOG))
    for figure in ("chat_eval_mid", "▶ RUNNING", "21.4k/21.4k", "10.25", "1.13M", "23h59m", "59m59s"):
        assert figure in page.getvalue(), page.getvalue()
    assert max(len(line) for line in page.getvalue().splitlines()) <= width

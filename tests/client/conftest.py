"""A running API, one per test module, with a worker that tests play themselves, and the command in this process."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Protocol

import pytest
from rich.console import Console

from client import cli_base
from client.cli import main
from services.standalone.valkey import Valkey
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api, serving
from tests.client.terminal import Done


@pytest.fixture(scope="module")
def api(module_database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(module_database_url, valkey.url, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


@pytest.fixture
def environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_URL", api.url)
    monkeypatch.setenv("NANOCHAT_API_KEY", api.key)
    monkeypatch.setenv("NANOCHAT_HOME", str(api.home))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


class Screen(io.StringIO):
    """Takes what is printed on a terminal."""

    def isatty(self) -> bool:
        return True


class Here(Protocol):
    def __call__(self, *arguments: str, columns: int = 0, **environment: str) -> Done: ...


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs the command in this process, which saves the start of Python: from its entry point to its exit code, piped or, with
    `columns`, on a screen of that width. tests/client/terminal.py runs it in a process of its own."""

    def run(*arguments: str, columns: int = 0, **environment: str) -> Done:
        capfd.readouterr()
        screen = Screen()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with monkeypatch.context() as changed, ExitStack() as stack:
            if columns:
                environment |= {"COLUMNS": str(columns), "TERM": "xterm-256color"}
                stack.enter_context(redirect_stdout(screen))
                stack.enter_context(redirect_stderr(screen))
            for name, value in environment.items():
                changed.setenv(name, value)
            Console.__init__(cli_base.out)  # it reads the environment when it is made, and --no-color changes it
            Console.__init__(cli_base.err, stderr=True)
            try:
                with pytest.raises(SystemExit) as end:
                    main(list(arguments))
            finally:
                for number, handler in handlers.items():  # a command that starts a process hands its signals on
                    signal.signal(number, handler)
        out, err = capfd.readouterr()
        assert end.value.code is None or isinstance(end.value.code, int)
        return Done(end.value.code or 0, screen.getvalue() or out, err)

    return run

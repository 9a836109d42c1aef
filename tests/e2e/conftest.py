"""`make demo` as a user runs it, in its own home, on real text when there is some; and a real browser."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import browser as browser
from tests.e2e.demo import HUB, ROOT, SCREENSHOTS, SHARED, SHORT, Demo
from tests.waiting import until


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo, running. At the end it gets SIGINT, as from Ctrl-C."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    home = tmp_path_factory.mktemp("e2e") / "home"
    log = home.parent / "demo.log"
    hub = SHARED.is_dir()
    env = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    env["SET"] = json.dumps({**SHORT, **(HUB if hub else {})})
    if hub:
        env["DATA"] = str(SHARED / "pretrain_small")
        env["TIKTOKEN_CACHE_DIR"] = str(SHARED / "tokenizers" / "tiktoken_cache")
    command = [sys.executable, "-m", "services.standalone", "demo"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        info = _stack(home / "stack.json", process, log)
        key = Path(info["key_file"]).read_text(encoding="utf-8").strip()
        demo = Demo(home, log, process, info["api_url"], info["inference_url"], info["ui_url"], key, hub)
        with demo.client() as client:  # the demo submits its run once the services answer
            until(lambda: list(client.runs()) or process.poll() is not None, "the demo's run", 300)
        yield demo
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=90)
            except subprocess.TimeoutExpired:  # started with SIGINT ignored; the stack must not outlive its tests
                process.terminate()
                process.wait(timeout=90)
                raise


def _stack(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> dict[str, str]:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        time.sleep(0.1)
    raise AssertionError(f"the stack did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")

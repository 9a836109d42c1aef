"""`make demo`: start the platform, train a small chat model over REST, ask it a question.

Environment variables: DATA is a folder of text: .parquet, .jsonl or .txt. ONCE=1 stops the platform at the end. SET overrides fields of the
recipe: `base.num_iterations=20`, or a JSON object with several.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from client import Client, ClientError, Inference, overrides
from client.text import troubles
from client.watch import watch
from nanochat.contract.contract import Exit
from services.standalone.child import StartError
from services.standalone.console import Running, running_stack
from services.standalone.roster import home_folder
from services.standalone.tree import PeakMemory

RECIPE = "tiny"
QUESTION = "Who are you?"
INTERRUPTED = 128 + signal.SIGINT
LOADING_S = 60.0  # the inference service polls, verifies and loads the model after the end of the run


class Refused(StartError):
    """DATA or SET is refused. Nothing was started."""


def demo() -> int:
    """The exit status: 0 when the run succeeded and the answer is not empty, Exit.BAD_INPUT when DATA or SET is refused, INTERRUPTED when
    Ctrl-C came before."""
    began, status = time.monotonic(), INTERRUPTED
    try:
        changes = {**data_overrides(os.environ.get("DATA")), **set_overrides(os.environ.get("SET"))}
        check(changes)
        with PeakMemory().watching() as memory, running_stack(home_folder()) as stack:
            try:
                status = 0 if train_and_ask(stack, changes) else 1
            except ClientError as err:
                status = 1
                print(f"\n{err}", file=sys.stderr, flush=True)
            minutes, seconds = divmod(round(time.monotonic() - began), 60)
            print(f"\n{minutes} min {seconds:02d} s in all, peak memory {memory.bytes / 2**30:.2f} GiB\n")
            print(stack.addresses(), flush=True)
            if os.environ.get("ONCE") not in (None, "", "0"):
                return status
            print("\nThe platform keeps running. Ctrl-C stops everything.", flush=True)
            stack.wait()
    except KeyboardInterrupt:
        return status
    except Refused as err:
        print(err, file=sys.stderr, flush=True)
        return Exit.BAD_INPUT
    except StartError as err:
        print(err, file=sys.stderr, flush=True)
    return 1


def data_overrides(folder: str | None) -> dict[str, object]:
    """DATA as an override of the recipe."""
    return overrides.parse([], Path(folder)) if folder else {}


def set_overrides(text: str | None) -> dict[str, object]:
    """SET as overrides of the recipe. Raises Refused when it cannot be read."""
    try:
        return overrides.parse_text(text or "")
    except overrides.OverrideError as err:
        raise Refused(f"SET={text}: {err}") from err


def check(changes: dict[str, object]) -> None:
    """Raises Refused when the recipe with these changes is refused; it names every wrong field."""
    command = [sys.executable, "-m", "nanochat.local.plan", RECIPE, "--overrides", json.dumps(changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"The recipe {RECIPE!r} with DATA and SET cannot run:\n{done.stderr.strip()}")


def train_and_ask(stack: Running, changes: dict[str, object]) -> bool:
    with Client(stack.api_url, stack.key) as client:
        for earlier in client.runs_page(limit=50).items:
            if not earlier.is_finished:
                print(
                    f"\nThe earlier run {earlier.id} has not ended and continues first; `nanochat cancel {earlier.id}` cancels it."
                )
        run = client.submit(RECIPE, changes, name="demo")
        print(f"\nRun {run.id}: recipe {RECIPE!r}, every stage from text to chat\n", flush=True)
        if watch(client, run.id) != "SUCCEEDED":
            run = client.run(run.id)
            print(f"\nThe run ended {run.status}.", *troubles(run), sep="\n", flush=True)
            return False
        wanted = {model.id for model in client.models() if model.run_id == run.id}
    with Inference(stack.inference_url, stack.key) as inference:
        model = _wait_for_model(inference, wanted)
        answer = inference.chat([{"role": "user", "content": QUESTION}], model, temperature=0.0, max_tokens=128).strip()
    print(f"\n  you    {QUESTION}\n  model  {answer or '(an empty answer)'}", flush=True)
    return bool(answer)


def _wait_for_model(inference: Inference, wanted: set[str]) -> str:
    """Wait until the inference service offers a model of the run; its id, the newest first. Raises StartError."""
    deadline = time.monotonic() + LOADING_S
    while time.monotonic() < deadline:
        for model in inference.models():
            if model in wanted:
                return model
        time.sleep(0.5)
    raise StartError(
        f"the inference service does not offer the run's model after {LOADING_S:.0f} s; its log is logs/inference.log"
    )

"""The examples of docs/data.md do what the page says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.config.recipe import resolve
from nanochat.tasks.formats import conversation_of
from nanochat.tokenizer import Tokenizer

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str = "") -> list[str]:
    """The fenced blocks of a language."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S) if name == language]


def block(start: str, language: str = "") -> str:
    return next(text for text in blocks(language) if text.startswith(start))


def run(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    env = {**os.environ, "NANOCHAT_HOME": ".nanochat", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([BIN / program, *arguments], cwd=home, env=env, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def home(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    folder = tmp_path / ".nanochat/local/tiny/tok_train/attempt-1/tokenizer"
    tokenizer.save(folder)
    (folder / "manifest.json").write_text("{}")
    (tmp_path / "chats.jsonl").write_text(block('{"messages"', "json"), encoding="utf-8")
    return tmp_path


def test_every_form_in_the_table_is_read() -> None:
    rows = re.findall(r"^\| (OpenAI|ShareGPT|Alpaca).*?\| `(\{.*?\})`", PAGE, re.M)
    assert [conversation_of(json.loads(row))[0] for _, row in rows] == ["messages", "sharegpt", "alpaca"]


def test_the_mixture_of_the_example_is_valid() -> None:
    command = shlex.split(block("nanochat submit"))
    field, _, value = command[command.index("--set") + 1].partition("=")
    _, own = resolve(command[2], {field: json.loads(value)}).sft.train
    assert (own.task, own.path, own.repeat) == ("jsonl", "/data/chats.jsonl", 2)


def test_the_check_prints_what_the_page_shows(home: Path) -> None:
    choice = {"question": "Which is it?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    files = {"arc/ARC-Easy-test.jsonl": choice, "gsm8k/test.jsonl": {"question": "Two and two?", "answer": "#### 4"}}
    for name, row in files.items():
        (home / "tasks" / name).parent.mkdir(parents=True)
        (home / "tasks" / name).write_text(json.dumps(row) + "\n")
    done = run("nanochat data check chats.jsonl --context 256 --tasks tasks", home)
    assert done.returncode == 1

    def without_token_counts(text: str) -> str:
        return re.sub(r"(?m)^(  (?:tokens|row|trained) .*)$", lambda line: re.sub(r"\d[\d.,]*", "N", line[1]), text)

    assert without_token_counts(done.stdout) == without_token_counts(block("chats.jsonl: 3"))


def test_the_persona_of_the_page_is_written_accepted_and_shown(home: Path) -> None:
    (home / "facts.md").write_text(block("# Kim", "markdown"), encoding="utf-8")
    assert run(block("nanochat identity"), home).returncode == 0
    for name in ("kim.jsonl", "kim.held_out.jsonl"):
        checked = run(f"nanochat data check {name}", home)
        assert checked.returncode == 0, checked.stdout
        assert "a run accepts it: yes" in checked.stdout
    assert run("nanochat inspect kim.jsonl --row 7", home).stdout.count("<|bos|>") == 1


def test_inspect_prints_what_the_page_shows(home: Path) -> None:
    done = run(block("nanochat inspect").splitlines()[0], home)
    shown, wanted = (re.sub(r"\d+(?= of| tokens|%)", "N", text).strip() for text in (done.stdout, block("chats.jsonl, line 3")))
    assert shown == wanted

"""`nanochat inspect`: what the model reads and what it learns, in colour, with marks, and as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from client.rendering import shown
from nanochat.chats.rendering import rendered
from nanochat.tokenizer import Tokenizer

NANOCHAT = Path(sys.executable).parent / "nanochat"
ROW = {
    "messages": [
        {"role": "user", "content": "What is 2+3?"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "python", "arguments": "2+3"}}]},
        {"role": "tool", "content": "5"},
        {"role": "assistant", "content": "It is 5, [so] 日."},
    ]
}


def inspect(*arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NANOCHAT_HOME": str(home), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([NANOCHAT, "inspect", *arguments], env=env, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def home(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    folder = tmp_path / "local/tiny/tok_train/attempt-1/tokenizer"
    tokenizer.save(folder)
    (folder / "manifest.json").write_text("{}")
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps(ROW) + "\n{}\n" + json.dumps(ROW) + "\n")
    return tmp_path


def test_piped_marks_enclose_what_is_learned(home: Path) -> None:
    done = inspect(home / "a.jsonl", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "a.jsonl, line 2:" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("<|") or "|>" in line]
    assert lines == [
        "<|bos|>",
        "<|user_start|>What is 2+3?<|user_end|>",
        "<|assistant_start|>[[",
        "<|python_start|>2+3<|python_end|>]]",
        "<|output_start|>5<|output_end|>[[It is 5, [so] 日.<|assistant_end|>]]",
    ]


def test_a_terminal_gets_colours_instead(tokenizer: Tokenizer) -> None:
    one = rendered({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "[ho]"}]}, tokenizer, 100)
    console = Console(force_terminal=True, color_system="standard", width=200)
    with console.capture() as capture:
        console.print(shown(one.model_dump(), colored=True))
    text = capture.get()
    assert "\x1b[1;32m[ho]" in text
    assert "\x1b[2mhi" in text
    assert "[[" not in text


def test_json_has_every_token_and_what_is_cut(home: Path, tokenizer: Tokenizer) -> None:
    done = inspect(home / "a.jsonl", "--row", "4", "--context", "12", "--json", home=home)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    parts = [
        {"type": "python", "text": "2+3"},
        {"type": "python_output", "text": "5"},
        {"type": "text", "text": "It is 5, [so] 日."},
    ]
    ids, mask = tokenizer.render({"messages": [ROW["messages"][0], {"role": "assistant", "content": parts}]}, 10**6)  # type: ignore[typeddict-item]
    assert [token["id"] for token in found["tokens"]] == ids[:12]
    assert [token["trained"] for token in found["tokens"]] == [bool(m) for m in mask[:12]]
    assert (found["cut"], found["trained"], found["place"]) == (len(ids) - 12, sum(mask[:12]), "line 4")
    assert sum(span["tokens"] for span in found["spans"]) == 12
    assert found["tokens"][0] == {"id": tokenizer.bos, "text": "<|bos|>", "trained": False, "special": True}


def test_a_task_is_shown_as_a_mixture_has_it(home: Path) -> None:
    done = inspect("sums", "--count", "3", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("<|bos|>") == 3
    assert "sums, train, row 3:" in done.stdout
    assert "sums, test, row 1:" in inspect("sums", "--split", "test", home=home).stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a.jsonl", "--row", "3"], "line 3, is no conversation"),
        (["a.jsonl", "--row", "5"], "has no line 5; its last one is 4"),
        (["nothing"], "'nothing' is neither a file nor a task"),
        (["gsm8k"], "lack gsm8k/train"),
        (["spelling"], "the word list is empty"),
        (["sums", "--split", "dev"], "no split 'dev'"),
    ],
)
def test_what_cannot_be_shown_is_named(home: Path, arguments: list[str], problem: str) -> None:
    done = inspect(*[str(home / a) if a.endswith(".jsonl") else a for a in arguments], home=home)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_without_a_tokenizer_it_says_what_to_do(home: Path, tmp_path: Path) -> None:
    done = inspect(home / "a.jsonl", home=tmp_path / "empty")
    assert done.returncode == 2
    assert "name the folder of one with --tokenizer" in done.stderr

"""`nanochat data check`, as a user calls it: what a file holds, and what is wrong with it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanochat.tokenizer import Tokenizer

NANOCHAT = Path(sys.executable).parent / "nanochat"


def chat(*said: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]}


ROWS: list[Any] = [
    chat("Hello", "Hello to you."),
    {"instruction": "Say the sum.", "input": "2, 3", "output": "5"},
    chat("Hello", "Hello to you."),  # line 3: again
    {"a": 1},  # line 4: broken
    chat("Tell me", ""),  # line 5: an empty answer
    chat("which is NUMBER 3, of these two?", "one"),  # line 6: a question of ARC-Easy, apart from case and marks
    chat("What is a dog? " * 40, "An animal."),  # line 7: the answer begins after the context
    chat("And a cat?", "An animal. " * 60),  # line 8: longer than the context
]


def check(path: Path, *options: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NANOCHAT_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run([NANOCHAT, "data", "check", path, *options], env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    choices = {"text": ["one", "two"], "label": ["A", "B"]}
    row = {"question": "Which is number 3 of these two?", "choices": choices, "answerKey": "A"}
    (tmp_path / "tasks/arc").mkdir(parents=True)
    (tmp_path / "tasks/arc/ARC-Easy-test.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "tasks"


def test_everything_about_a_file_is_said(chats: Path, tasks: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    options = ("--tokenizer", tmp_path / "tokenizer", "--tasks", tasks, "--context", "100")
    done = check(chats, *options, home=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    for line in (
        "chats.jsonl: 7 conversations (6 messages, 1 alpaca)",
        "compared with arc_easy: 1 question of theirs",
        "arc_easy: lines 6",
        "duplicates     1: lines 3",
        "empty answers  1: lines 5",
        "broken         1 that are no conversation:",
        "line 4: it is no list of messages",
        "2 rows longer than 100 tokens",
        "1 row whose answers begin after that, or have the weight 0",
        "a run accepts it: no, mend or remove what is broken",
    ):
        assert line in done.stdout

    found = json.loads(check(chats, *options, "--json", home=tmp_path).stdout)
    assert (found["rows"], found["forms"], found["answers"]) == (7, {"messages": 6, "alpaca": 1}, 7)
    assert [broken["place"] for broken in found["broken"]] == [4]
    assert found["overlaps"] == [{"place": 6, "task": "arc_easy"}]
    assert (found["duplicates"], found["empty_answers"]) == ([3], [5])
    assert (found["tokens"]["longer_rows"], found["tokens"]["unlearned_rows"]) == (2, 1)
    assert found["tokens"]["cut"] > 0


def test_figures_are_those_of_the_rendering(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    rows = [chat("Hello", "Hello to you."), chat("Why?", "Because.", "Is it?", "Yes, it is so.")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = check(tmp_path / "a.jsonl", "--tokenizer", tmp_path / "tokenizer", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    tokens = json.loads(done.stdout)["tokens"]
    rendered = [tokenizer.render({"messages": row["messages"]}, 10**6) for row in rows]
    assert tokens["total"] == sum(len(ids) for ids, _ in rendered)
    assert tokens["trained"] == sum(sum(mask) for _, mask in rendered)
    assert (tokens["longest"], tokens["longest_place"]) == (len(rendered[1][0]), 2)
    assert (tokens["longer_rows"], tokens["cut"], tokens["context"]) == (0, 0, 2048)


def test_a_file_of_answers_that_are_not_to_be_learned_is_refused_as_a_run_does(tmp_path: Path) -> None:
    row = chat("Hello", "Hello to you.")
    row["messages"][1]["weight"] = 0
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    done = check(tmp_path / "a.jsonl", home=tmp_path)
    assert done.returncode == 1
    assert "a run accepts it: no, every answer has the weight 0" in done.stdout


def test_questions_of_core_are_found_without_their_passage(tmp_path: Path, bundle: Path) -> None:
    items = [{"query": "Passage: A dog.\nQuestion: What does the small dog eat?\nAnswer:", "choices": ["a", "b"], "gold": 0}]
    (bundle / "eval_data/c.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (tmp_path / "a.jsonl").write_text(json.dumps(chat("what does the SMALL dog eat", "Meat.")) + "\n")
    done = check(tmp_path / "a.jsonl", "--core", bundle, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["overlaps"] == [{"place": 1, "task": "core/copa"}]
    assert "core/jeopardy" in found["compared_with"]
    assert "3 tasks of CORE: 1 question of theirs" in check(tmp_path / "a.jsonl", "--core", bundle, home=tmp_path).stdout
    wrong = check(tmp_path / "a.jsonl", "--core", tmp_path / "none", home=tmp_path)
    assert wrong.returncode == 2
    assert "is not a CORE bundle" in wrong.stderr


def test_the_newest_tokenizer_of_this_machine_is_used_and_without_one_it_says_so(
    chats: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    without = check(chats, home=tmp_path / "home")
    assert "not counted: no run on this machine has made a tokenizer; name one with --tokenizer" in without.stdout
    assert "characters of all messages" in without.stdout
    assert "not compared: there are no task data" in without.stdout
    for run in ("old", "new"):
        folder = tmp_path / f"home/local/{run}/tok_train/attempt-1/tokenizer"
        tokenizer.save(folder)
        (folder / "manifest.json").write_text("{}")
    assert f"by {tmp_path}/home/local/new/tok_train/attempt-1/tokenizer" in check(chats, home=tmp_path / "home").stdout


@pytest.mark.parametrize(
    ("name", "content", "code", "problem"),
    [
        ("none.jsonl", None, 2, "no file"),
        ("empty.jsonl", b"", 1, "it holds no conversation"),
        ("list.json", b"3", 2, "is no list of conversations"),
        ("text.jsonl", b"hello\n", 1, "line 1: it is not JSON"),
        ("latin.jsonl", b'{"instruction": "Gr\xfc\xdfe", "output": "x"}\n', 1, "line 1: it is not UTF-8"),
    ],
)
def test_what_is_no_file_of_conversations(tmp_path: Path, name: str, content: bytes | None, code: int, problem: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = check(tmp_path / name, home=tmp_path)
    assert done.returncode == code
    assert problem in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_tokenizer_or_task_folder_that_is_not_there_is_named(chats: Path, tmp_path: Path) -> None:
    assert "cannot load the tokenizer" in check(chats, "--tokenizer", tmp_path / "x", home=tmp_path).stderr
    assert "no folder" in check(chats, "--tasks", tmp_path / "x", home=tmp_path).stderr

"""`nanochat identity`: conversations of a persona, various, the same every time, with questions that are held out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanochat.chats.persona import Persona, read_facts, topics
from nanochat.contract.contract import StageError
from nanochat.tasks.dialogue import held_out
from nanochat.tasks.generated import bare
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource

NANOCHAT = Path(sys.executable).parent / "nanochat"
FACTS = """# Kim

- maker: the robotics club of Hill School
* **Purpose**: to help new members.
1. favourite tool: a small screwdriver
- likes: boats
- likes: rain
I was trained on one afternoon in May
Q: Do you like snow?
A: Only from indoors
"""


def said(conversations: list[Any], role: str) -> list[str]:
    return [str(m["content"]) for c in conversations for m in c["messages"] if m["role"] == role]


def test_facts_are_read_line_by_line() -> None:
    facts = read_facts(FACTS)
    assert facts.named["maker"] == ["the robotics club of Hill School"]
    assert facts.named["purpose"] == ["to help new members"]
    assert facts.named["likes"] == ["boats", "rain"]
    assert facts.said == ["I was trained on one afternoon in May."]
    assert facts.asked == {"Do you like snow?": ["Only from indoors."]}
    assert len(facts) == 7


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there are 0 facts"),
        ("# Kim\n\n---\n", "there are 0 facts"),
        ("Q: Who?\nmaker: me", "line 2 of the facts: the question 'Who\\?' before it has no answer"),
        ("\nQ: Who?", "line 2 of the facts: the question 'Who\\?' has no answer"),
        ("A: Me.", "line 1 of the facts: an answer without a question"),
        ("I am here.\n" * 1001, "there are 1,001 facts"),
    ],
)
def test_facts_that_cannot_be_used_are_refused(text: str, problem: str) -> None:
    with pytest.raises(StageError, match=problem):
        read_facts(text)


def test_every_fact_is_taught_and_the_name_is_everywhere() -> None:
    train = Persona("Kim", read_facts(FACTS)).conversations(1000, 1, test=False)
    answers = " ".join(said(train, "assistant"))
    for fact in (
        "robotics club of Hill School",
        "help new members",
        "small screwdriver",
        "boats and rain",
        "one afternoon in May",
    ):
        assert answers.count(fact) > 10, fact
    assert said(train, "assistant").count("Only from indoors.") > 10
    assert "{" not in answers + " ".join(said(train, "user"))
    assert "nanochat" not in answers
    assert sum("Kim" in text for text in said(train, "assistant")) > 300
    assert "No, I am Kim." in said(train, "assistant")


def test_there_is_real_variety() -> None:
    train = Persona("Kim", read_facts(FACTS)).conversations(1000, 1, test=False)
    assert len(train) == len({json.dumps(c) for c in train}) == 1000
    assert len({len(c["messages"]) for c in train}) >= 4
    assert len({bare(question) for question in said(train, "user")}) > 600
    for greeting in (
        "¡Hola! Soy Kim.",
        "Je suis Kim",
        "Ich bin Kim",
        "Sono Kim",
        "Eu sou Kim",
        "我是Kim",
        "Kimです",
        "저는 Kim",
        "Ben Kim",
    ):
        assert any(greeting in answer for answer in said(train, "assistant")), greeting
    for count in (said(train, "user").count(q) for q in set(said(train, "user"))):
        assert count < 60  # no question is more than a few percent


def test_the_same_seed_gives_the_same_conversations() -> None:
    persona = Persona("Kim", read_facts(FACTS))
    assert persona.conversations(50, 1, test=False) == Persona("Kim", read_facts(FACTS)).conversations(50, 1, test=False)
    assert persona.conversations(50, 1, test=False) == persona.conversations(200, 1, test=False)[:50]
    assert persona.conversations(50, 1, test=False) != persona.conversations(50, 2, test=False)


def test_a_held_out_question_is_in_no_trained_one() -> None:
    facts = read_facts(FACTS)
    held = held_out(topics("Kim", facts))
    made = Persona("Kim", facts)
    train, test = (made.conversations(1000, 1, test=split) for split in (False, True))
    trained = {bare(question) for question in said(train, "user")}
    assert len(held) > 20
    for question in held:
        assert not [t for t in trained if t == question or (t.endswith(f" {question}") and len(question) > 12)], question
    for question in (bare(question) for question in said(test, "user")):
        assert any(question == key or question.endswith(f" {key}") for key in held), question


def test_a_name_with_a_space_in_another_script_is_kept_as_it_is() -> None:
    train = Persona("小 明", read_facts("maker: a class")).conversations(200, 1, test=False)
    assert "I am 小 明." in said(train, "assistant")


def identity(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NANOCHAT, "identity", *options], cwd=folder, capture_output=True, text=True, check=False)


def test_the_command_writes_two_files_that_a_mixture_takes(tmp_path: Path) -> None:
    (tmp_path / "facts.md").write_text(FACTS, encoding="utf-8")
    done = identity(tmp_path, "--name", "Kim", "--facts", "facts.md", "--rows", "80")
    assert (done.returncode, done.stderr) == (0, "")
    assert "kim.jsonl: 80 conversations to train on" in done.stdout
    assert f'add {{"jsonl": "{tmp_path}/kim.jsonl"}} to sft.train' in done.stdout
    rows = {n: named("jsonl", "train", TaskSource(), path=str(tmp_path / n)) for n in ("kim.jsonl", "kim.held_out.jsonl")}
    assert {name: len(task) for name, task in rows.items()} == {"kim.jsonl": 80, "kim.held_out.jsonl": 10}

    again = identity(tmp_path, "--name", "Kim", "--facts", "facts.md")
    assert again.returncode == 2
    assert "kim.jsonl is there already" in again.stderr
    assert identity(tmp_path, "--name", "Kim", "--facts", "facts.md", "--force", "--rows", "8").returncode == 0
    assert len((tmp_path / "kim.jsonl").read_text().splitlines()) == 8


def test_what_the_command_cannot_use_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes("maker: Müller".encode("latin-1"))
    (tmp_path / "facts.md").write_text(FACTS)
    for options, problem in (
        (("--name", "Kim", "--facts", "none.md"), "no file none.md"),
        (("--name", "Kim", "--facts", "facts.md", "--out", "."), ". is a folder"),
        (("--name", "Kim", "--facts", "latin.md"), "latin.md is not UTF-8"),
        (("--name", " ", "--facts", "facts.md"), "a name has 1 to 60 characters"),
        (("--name", "Kim", "--facts", "facts.md", "--rows", "10000000"), "not a number of conversations"),
    ):
        done = identity(tmp_path, *options)
        assert done.returncode == 2
        assert problem in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.jsonl"))

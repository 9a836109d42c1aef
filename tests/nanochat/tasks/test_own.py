"""A user's own evaluations: each kind of question, files with wrong lines, and an installed package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.config.recipe import RecipeError, resolve
from nanochat.contract.contract import Exit, StageError
from nanochat.planning import graph, preflight
from nanochat.tasks import own, questions
from nanochat.tasks.questions import Questions
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask

ROOT = Path(__file__).parents[3]


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"answer": "Paris"}, ["Paris", " Paris\n"], ["paris", "Paris.", ""]),
        ({"answer": ["Paris", "paris"]}, ["Paris", "paris"], ["Rome"]),
        ({"regex": "(?i)\\bparis\\b"}, ["It is PARIS."], ["parish", ""]),
        ({"number": 1200}, ["It is 1,200.", "7 and then 1200.0", "#### 1200"], ["1200 or 7", "none", "12 00"]),
        ({"number": -0.5}, ["-0.5", "= -0.50", "\u2212.5"], ["0.5"]),
        (
            {"number": 100000},
            ["1e5", "about 1.0E+5", "\u0661\u0660\u0660\u0660\u0660\u0660"],
            ["1e999999999999999999999", "\u2212100000", "5"],
        ),
        ({"answer": ["서울", "café"]}, ["서울", "\u1109\u1165\u110b\u116e\u11af", "cafe\u0301 "], ["서울시", "cafe"]),
        ({"regex": "서울(은|에)"}, ["그래서 서울은"], ["서울"]),
        (
            {"test": "def check(f):\n    assert f(3) == 9", "entry_point": "square"},
            ["def square(x):\n    return x * x", "```python\ndef square(x):\n    return x ** 2\n```"],
            ["def square(x):\n    return x", "def cube(x):\n    return 9", ""],
        ),
    ],
    ids=["text", "texts", "regex", "number", "negative", "power", "unicode", "unicode regex", "code"],
)
def test_a_question_is_judged_by_what_its_line_holds(tmp_path: Path, row: dict, right: list[str], wrong: list[str]) -> None:
    task = Questions.read("mine", written(tmp_path / "q.jsonl", {"question": "What?", **row}))
    assert (len(task), task.eval_type, task.baseline) == (1, "generative", 0.0)
    assert task[0]["messages"][0] == {"role": "user", "content": "What?"}
    assert [task.evaluate(task[0], text) for text in right] == [True] * len(right)
    assert [task.evaluate(task[0], text) for text in wrong] == [False] * len(wrong)


def test_an_expression_that_takes_for_ever_makes_the_answer_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "REGEX_SECONDS", 0.2)
    task = Questions.read("mine", written(tmp_path / "q.jsonl", {"question": "a?", "regex": "^(a|aa)+$"}))
    assert task.evaluate(task[0], "aaa")
    assert not task.evaluate(task[0], "a" * 60 + "b")


def test_choices_are_ranked_by_letter(tmp_path: Path) -> None:
    rows = [
        {"question": f"{n}?", "choices": ["cat", "dog", "cow", "pig"][: 2 + n], "answer": a}
        for n, a in enumerate(["B", 2, "pig"])
    ]
    task = Questions.read("mine", written(tmp_path / "q.jsonl", *rows))
    assert task.eval_type == "categorical"
    assert task.baseline == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert [c["messages"][-1]["content"] for c in task] == ["B", "C", "D"]
    assert [task.evaluate(c, "B") for c in task] == [True, False, False]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2 is not JSON"),
        ({"answer": "a"}, "line 2 has no text 'question'"),
        ({"question": "a?"}, "line 2 has nothing to judge an answer by"),
        ({"question": "a?", "answer": "b", "regex": "c"}, "line 2 has 'answer' and 'regex'"),
        ({"question": "a?", "answer": 3}, "neither a text nor a list"),
        ({"question": "a?", "choices": ["b", "c"], "answer": "D"}, "answer 'D', which is no choice"),
        ({"question": "a?", "choices": ["b"], "answer": 0}, "2 to 26 texts"),
        ({"question": "a?", "regex": "("}, "'regex' that is none"),
        ({"question": "a?", "number": "3"}, "'number' that is none"),
        ({"question": "a?", "test": "def check(f): ..."}, "without the name of a function"),
        ({"question": "a?", "test": "def check(f): ...", "entry_point": "class"}, "'class', which no function can be named"),
        (
            {"question": "a?", "test": "def check(f:\n", "entry_point": "f"},
            "'test' that is no Python: '(' was never closed, line 1",
        ),
        ({"question": "a?", "test": "def check(f): ...", "entry_point": None}, "without the name of a function"),
        ({"question": "a?", "test": "def check(f): ..." + "\0", "entry_point": "f"}, "'test' that is no Python: source code"),
        ({"question": "a?", "test": "assert f(2) == 4", "entry_point": "f"}, "'test' without a function 'check'; `check(f)`"),
        ({"question": "a?", "test": "x=" + "-" * 100_000 + "1", "entry_point": "f"}, "is nested too deeply"),
        ({"question": "a?", "regex": "a{99999999999999999999}"}, "'regex' that is none: the repetition number is too large"),
        ({"question": "a?", "choices": ["b", "c"], "regex": "b"}, "has 'choices' with 'regex'"),
        ({"question": "a?", "choices": ["B", "A"], "answer": "A"}, "which is a choice and the letter of another"),
        ({"question": "a\ud800?", "answer": "b"}, "has half a character (U+D800)"),
        (
            {"question": "a?", "choices": ["b", "b", "c"], "answer": "b"},
            "answer 'b', which is 2 of the choices; give its letter",
        ),
        ('{"question": "a?", "answer": ' + "[" * 100_000, "is nested too deeply"),
        ('{"question": "a?", "number": NaN}', "'number' that is none"),
        ({"question": "a?", "choices": ["b", "c"], "answer": 0}, "mixes multiple choice with other questions"),
    ],
)
def test_a_wrong_line_is_named_before_the_run(tmp_path: Path, line: object, problem: str) -> None:
    path = written(tmp_path / "q.jsonl", {"question": "a?", "answer": "b"}, line)
    with pytest.raises(StageError, match=r"q\.jsonl line 2") as caught:
        Questions.read("mine", path)
    assert problem in str(caught.value)
    recipe = resolve("tiny", {"chat_eval.own": [{"name": "mine", "jsonl": str(path)}]})
    ((field, told),) = preflight.check(recipe)
    assert field == "chat_eval.own.0.jsonl"
    assert problem in told


def test_files_that_hold_no_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no file"):
        Questions.read("mine", tmp_path / "none.jsonl")
    with pytest.raises(StageError, match="has no questions"):
        Questions.read("mine", written(tmp_path / "q.jsonl"))
    (tmp_path / "q.jsonl").write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(StageError, match="line 1 is not UTF-8"):
        Questions.read("mine", tmp_path / "q.jsonl")


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_mark_of_utf8_is_no_part_of_the_first_line(tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "q.jsonl").write_bytes(mark + b'{"question": "a?", "answer": "b"}\r\n')
    assert len(Questions.read("mine", tmp_path / "q.jsonl")) == 1


def test_a_name_is_that_of_no_other_task() -> None:
    with pytest.raises(RecipeError, match="'gsm8k' is that of a task of the table"):
        resolve("tiny", {"chat_eval.own": [{"name": "gsm8k", "jsonl": "q.jsonl"}]})


def test_the_data_stage_is_told_what_to_check() -> None:
    recipe = resolve("tiny", {"chat_eval.own": [{"name": "capitals"}]})
    data = next(stage for stage in graph.stages(recipe) if stage.name == "data")
    assert graph.config(recipe, data)[graph.CHECKED]["own"] == [{"name": "capitals", "jsonl": None}]
    assert graph.CHECKED not in graph.decisive(graph.config(recipe, data)), "what is only checked changes no data"


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(StageError, match="no installed package offers the task 'no_such_task'"):
        own.load(OwnTask(name="no_such_task"), TaskSource())


PACKAGE = """
import sys
from nanochat.tasks.base import Task, user_and_assistant
class Broken(Task):
    name = "broken"
    def __init__(self, source): ...
    def __len__(self): return 3
    def conversation(self, index): return {"messages": user_and_assistant("a?", "b")}
"""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            'def conversation(self, index): return {"messages": ["b"][index]}',
            "row 0 of task 'broken' makes no problem: TypeError",
        ),
        ("def conversation(self, index): return [][index]", "row 0 of task 'broken' makes no problem: IndexError"),
        ("def conversation(self, index): sys.exit(3)", "row 0 of task 'broken' makes no problem: SystemExit: 3"),
        ('def conversation(self, index): return {"messages": user_and_assistant("a?", "b")[1:]}', "do not end with a question"),
        ('eval_type = "categorical"', "it has no `letters`"),
        ('eval_type = "multiple"', "eval_type 'multiple'; known: generative, categorical"),
        ("def __len__(self): return 0", "has no rows"),
        ("def __len__(self): return -1", "cannot say how many rows it has: ValueError"),
        ("def __init__(self, source): sys.exit(3)", "cannot be loaded: SystemExit: 3"),
    ],
)
def test_a_package_whose_problem_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, problem: str
) -> None:
    (tmp_path / "broken_task.py").write_text(f"{PACKAGE}    {line}\n")
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (tmp_path / "broken-1.dist-info/entry_points.txt").write_text("[nanochat.tasks]\nbroken = broken_task:Broken\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_task", raising=False)
    with pytest.raises(StageError, match="'broken'") as caught:
        own.check(OwnTask(name="broken"), TaskSource())
    assert problem in str(caught.value)
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_the_example_package_is_installed_and_evaluated(tmp_path: Path) -> None:
    """As docs/evaluations.md says, but into a folder of its own."""
    install = ["uv", "pip", "install", "-q", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    bin_first = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    example = ROOT / "docs/examples/capitals"
    done = subprocess.run(
        [*install, "--target", str(tmp_path), str(example)], env=bin_first, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    program = """
from nanochat.tasks import own
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask
task = own.load(OwnTask(name="capitals"), TaskSource())
print(len(task), task.evaluate(task[0], "It is Paris."), task.evaluate(task[0], "Rome"))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "libs"), str(ROOT)])}
    found = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["4", "True", "False"]

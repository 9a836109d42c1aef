"""Tasks over data sets: how a row becomes a conversation, and when an answer is right."""

import json
from pathlib import Path

import numpy as np
import pytest

from nanochat.config.recipe import Recipe, TaskUse
from nanochat.contract.contract import StageError
from nanochat.tasks.base import reference
from nanochat.tasks.catalog import find_in_folder
from nanochat.tasks.gsm8k import solution_parts
from nanochat.tasks.judge import final_number
from nanochat.tasks.mixture import load_mixture
from nanochat.tasks.programs import code_in, leading_imports
from nanochat.tasks.registry import load, named
from nanochat.tasks.source import TaskSource, write_source
from nanochat.tokenizer import Tokenizer

from .conftest import CHAT

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def test_a_multiple_choice_question_ends_its_choices_with_the_letter(source: TaskSource) -> None:
    task = named("mmlu", "test", source)
    asked = next(c["messages"] for c in task if "What is 2?" in str(c["messages"][0]["content"]))
    assert asked[0]["content"] == (
        "Multiple Choice question: What is 2?\n- a=A\n- b=B\n- c=C\n- d=D\n\nRespond only with the letter of the correct answer."
    )
    assert asked[1]["content"] == "C"


@pytest.mark.parametrize(("name", "split"), [("arc_easy", "test"), ("mmlu", "test"), ("mmlu", "auxiliary_train")])
def test_a_letter_is_right_or_wrong_or_refused(source: TaskSource, name: str, split: str) -> None:
    task = named(name, split, source)
    assert task.eval_type == "categorical"
    assert task.name == name
    for conversation in task:
        letters = conversation["letters"]
        assert [letter for letter in letters if task.evaluate(conversation, letter)] == [reference(conversation)]
    with pytest.raises(ValueError, match="none of"):
        task.evaluate(task[0], "Z")


def test_rows_come_in_the_hubs_shuffled_order(source: TaskSource) -> None:
    order = np.random.default_rng(42).permutation(7)
    asked = [c["messages"][0]["content"] for c in named("gsm8k", "train", source)]
    assert asked == [f"Tom has {i} and 2 more." for i in order]
    assert [c["messages"][0]["content"] for c in named("gsm8k", "train", source, limit=3)] == asked[:3]


def test_files_of_one_split_are_joined(source: TaskSource) -> None:
    said = {str(c["messages"][0]["content"]) for c in named("smoltalk", "train", source)}
    assert said == {f"hi {i}" for i in range(8)}


@pytest.mark.parametrize("content", [None, 3, {"a": 1}, ["a"]])
def test_a_content_that_is_no_text_is_never_trained_on(source: TaskSource, tmp_path: Path, content: object) -> None:
    row = {"messages": [{"role": "system", "content": content}, *CHAT[0]["messages"]]}
    (tmp_path / "data/chat/c_train.jsonl").write_text(json.dumps(row) + "\n")
    write_source(tmp_path / "again", find_in_folder(tmp_path / "data"), tmp_path / "data", [])
    with pytest.raises(StageError, match="a row of smoltalk is no conversation: the content of message 1"):
        named("smoltalk", "train", TaskSource.load(tmp_path / "again"))[:]


def test_a_calculation_becomes_a_tool_call_and_its_output() -> None:
    assert solution_parts("He has 48/2 = <<48/2=24>>24.\n<<a==b=1>>#### 24") == [
        {"type": "text", "text": "He has 48/2 = "},
        {"type": "python", "text": "48/2"},
        {"type": "python_output", "text": "24"},
        {"type": "text", "text": "24.\n"},
        {"type": "python", "text": "a==b"},
        {"type": "python_output", "text": "1"},
        {"type": "text", "text": "#### 24"},
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 1,200", "1200"),
        ("so #### -3.5 of it", "-3.5"),
        # As in the benchmark: what is not a number alone is not the number.
        ("#### 109.", "109."),
        ("#### 109...", "109..."),
        ("#### .", "."),
        ("####12", None),
        ("12", None),
        ("#### 1\n#### 2", "1"),
        ("#### x", None),
    ],
)
def test_the_final_number(text: str, number: str | None) -> None:
    assert final_number(text) == number


def test_gsm8k_compares_numbers(source: TaskSource) -> None:
    task = named("gsm8k", "test", source)
    for conversation in task:
        number = final_number(reference(conversation))
        assert task.evaluate(conversation, f"It is so. #### {number}")
        assert not task.evaluate(conversation, f"#### {number}.")
        assert not task.evaluate(conversation, f"#### {number}...")
        assert not task.evaluate(conversation, f"It is {number}")
        assert not task.evaluate(conversation, "#### 1000")


def test_humaneval_runs_the_tests(source: TaskSource) -> None:
    task = named("humaneval", "test", source)
    conversation = task[0]
    assert task.evaluate(conversation, reference(conversation))
    assert task.evaluate(conversation, "Sure:\n```python\ndef area(r):\n    return math.pi * r ** 2\n```\nDone.")
    assert not task.evaluate(conversation, "def area(r):\n    return r")
    assert not task.evaluate(conversation, "no code at all")
    prompt = str(conversation["messages"][0]["content"])
    assert leading_imports(prompt) == "from typing import List\nimport math"
    assert code_in("```\nx = 1\n```\n```\ny\n```") == "x = 1"


AREA = "def area(r):\n    return math.pi * r ** 2\n"
PERIMETER = "def area(r):\n    return 2 * math.pi * r\n"
RIGHT_PROGRAMS = {
    "main reads": 'if __name__ == "__main__":\n    print(area(float(input())))\n',
    "main tests": 'if __name__ == "__main__":\n    import unittest\n    unittest.main()\n',
    "main exits": 'def main():\n    return 1\n\nif __name__ == "__main__":\n    import sys\n    sys.exit(main())\n',
    "main takes arguments": 'import sys\nif __name__ == "__main__":\n    print(area(int(sys.argv[1])))\n',
}


@pytest.mark.parametrize("end", RIGHT_PROGRAMS.values(), ids=RIGHT_PROGRAMS)
def test_a_block_for_the_command_line_does_not_run(source: TaskSource, end: str) -> None:
    task = named("humaneval", "test", source)
    assert task.evaluate(task[0], f"```python\n{AREA}\n{end}```")
    assert not task.evaluate(task[0], f"```python\n{PERIMETER}\n{end}```")


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        (f" {AREA}", AREA.replace("    ", "   ")),
        (f"\t{AREA}", AREA),
        (f"\n\n  {AREA}", AREA.replace("    ", "  ")),
        ("  def f():\n      return 1", "def f():\n    return 1"),
        ("```python\r\nx = 1\r\ny = 2\r\n```\r\n", "x = 1\ny = 2"),
        ("x = 1\r\ny = 2", "x = 1\ny = 2"),
        ('Like so: ```python\ns = "```"\n```', 's = "```"'),
        (
            '```\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1\n```\nDone.',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1',
        ),
        ("````\n```\n````", "```"),
        ("```bash\npip install it\n```\n```py\nx = 1\n```", "x = 1"),
        ("```Python3\nx = 1\n```", "x = 1"),
        ("```python\n x = 1\n y = 2\n```", "x = 1\ny = 2"),
        ("```python\nx = 1```", "x = 1"),
        ("```python\nx = 1\n", "x = 1"),
        ("1. First:\n   ```python\n   x = 1\n   ```\n", "x = 1"),
        ("```text\nno code\n```", "```text\nno code\n```"),
        ("", ""),
    ],
)
def test_the_code_of_an_answer(completion: str, code: str) -> None:
    assert code_in(completion).rstrip() == code.rstrip()


def test_a_mixture_holds_every_row_as_often_as_listed_in_a_fixed_order(source: TaskSource) -> None:
    uses = [TaskUse(task="gsm8k"), TaskUse(task="smoltalk", repeat=2), TaskUse(task="sums", size=5)]
    mixed = load_mixture(uses, source)
    assert len(mixed) == 7 + 16 + 5
    rows = [str(c) for c in mixed]
    assert rows == [str(c) for c in load_mixture(uses, source)]
    assert rows != [str(c) for c in load_mixture(uses, source, seed=1)]
    assert sorted(rows) == sorted([str(c) for use in uses for c in load(use, source) for _ in range(use.repeat)])


def test_what_is_missing_is_named(source: TaskSource, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="lack arc_challenge/test"):
        named("arc_challenge", "test", source)
    with pytest.raises(StageError, match="no split 'dev2'"):
        named("mmlu", "dev2", source)
    with pytest.raises(StageError, match="no task 'chess'"):
        named("chess", "test", source)
    assert source.root is not None
    (source.root / "gsm8k/train.jsonl").write_text("{}\n")
    with pytest.raises(StageError, match=r"train\.jsonl"):
        TaskSource.load(tmp_path / "tasks")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_speedruns_mixtures_load_from_the_shared_folder(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_source(
        tmp_path / "tasks", find_in_folder(SHARED), SHARED, ["apple", "banana", "there"] * 50, SHARED / "words/words_alpha.txt"
    )
    shared = TaskSource.load(tmp_path / "tasks")
    recipe = Recipe()
    sft = load_mixture(recipe.sft.train, shared)
    assert len(sft) == 2251 + 1119 + 7473 + 10_000 + 1000 + 300 + 300  # nanochat's 22,439 had 996 identity rows
    for uses in (recipe.sft.train, recipe.sft.val, recipe.mid.train, recipe.mid.val):
        mixed = load_mixture(uses, shared)
        for i in range(0, len(mixed), len(mixed) // 40):
            ids, mask = tokenizer.render(mixed[i], 100_000)
            assert len(ids) == len(mask)
            assert any(mask)
    for name, rows in {"arc_easy": 2376, "arc_challenge": 1172, "mmlu": 14_042, "gsm8k": 1319, "humaneval": 164}.items():
        assert len(named(name, "test", shared)) == rows

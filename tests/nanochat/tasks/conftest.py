"""A task source of small files in every layout the tasks read."""

import json
import re
from itertools import product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.tasks.catalog import find_in_folder
from nanochat.tasks.source import TaskSource, write_source

WORDS = tuple(
    re.findall(
        r"\w+", "the and for that with this from have word model number apple banana letter python function return value index"
    )
)
# Words as in data.words: many, and not from the corpus.
LONG_LIST = tuple("".join(letters) for letters in product("bcd", "aeiou", "lmnrst", "aeiou", "kgpst"))

ARC = [
    {
        "id": str(i),
        "question": f"Which is number {i}?",
        "choices": {"text": ["one", "two"], "label": ["A", "B"]},
        "answerKey": "AB"[i % 2],
    }
    for i in range(5)
]
MMLU = [{"question": f"What is {i}?", "subject": "algebra", "choices": ["a", "b", "c", "d"], "answer": i % 4} for i in range(6)]
GSM8K = [
    {"question": f"Tom has {i} and 2 more.", "answer": f"He has {i}+2 = <<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}"}
    for i in range(7)
]
CHAT = [{"messages": [{"role": "user", "content": f"hi {i}"}, {"role": "assistant", "content": f"ho {i}"}]} for i in range(8)]
HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'from typing import List\nimport math\n\n\ndef area(r: float) -> float:\n    """Area of a circle."""\n',
        "canonical_solution": "    return math.pi * r * r\n",
        "test": "def check(candidate):\n    assert abs(candidate(1.0) - 3.14159) < 1e-3\n",
        "entry_point": "area",
    }
]


def write_folder(root: Path) -> Path:
    """The layout of a folder of task data; MMLU's auxiliary rows are parquet, wrapped once more, as on the hub."""
    files = {
        "arc/ARC-Easy-train.jsonl": ARC,
        "arc/ARC-Easy-test.jsonl": ARC,
        "mmlu/test.jsonl": MMLU,
        "gsm8k/train.jsonl": GSM8K,
        "gsm8k/test.jsonl": GSM8K,
        "humaneval/HumanEval.jsonl": HUMANEVAL,
        "chat/a_train.jsonl": CHAT[:4],
        "chat/b_train.jsonl": CHAT[4:],
    }
    for name, rows in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([{"train": row} for row in MMLU]), root / "mmlu/auxiliary_train.parquet")
    return root


@pytest.fixture
def source(tmp_path: Path) -> TaskSource:
    root = write_folder(tmp_path / "data")
    (tmp_path / "list.txt").write_text("\r\n".join(LONG_LIST), encoding="utf-8")
    write_source(tmp_path / "tasks", find_in_folder(root), root, WORDS, tmp_path / "list.txt")
    return TaskSource.load(tmp_path / "tasks")

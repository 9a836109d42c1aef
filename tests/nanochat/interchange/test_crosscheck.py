"""lm-eval and our scorer read the same items of CORE as the same tokens, and judge them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nanochat.data.core_bundle import read_items, read_tasks
from nanochat.interchange import core_tasks, crosscheck
from nanochat.interchange.__main__ import main
from nanochat.interchange.core_tasks import Shared
from nanochat.tokenizer import Tokenizer
from tests.nanochat.conftest import write_bundle
from tests.nanochat.interchange.conftest import EVERY_SWITCH, Sealed
from tests.nanochat.interchange.test_transformers import exported

pytestmark = pytest.mark.usefixtures("one_core")
LM_EVAL = os.environ.get("LM_EVAL_PYTHON", sys.executable)  # of an environment that has lm-eval
THREE = {"copa": "multiple_choice", "winograd": "schema", "jeopardy": "language_modeling"}


def has_lm_eval() -> bool:
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lm_eval') is None)"
    return not subprocess.run([LM_EVAL, "-c", look], capture_output=True, check=False).returncode


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """One task of each kind, with beginnings in common, choices of several lengths and text beyond ASCII."""
    folder = write_bundle(tmp_path / "bundle")
    choices = [
        {
            "query": f"the dog {i} – naïve, “quoted”",
            "choices": [f"runs {i}", "sleeps on and on", "runs and runs"],
            "gold": i % 3,
        }
        for i in range(12)
    ]
    schema = [
        {"context_options": [f"fox {i} said", "a lazy dog, 12 + 3,"], "continuation": "runs away.", "gold": i % 2}
        for i in range(9)
    ]
    words = [{"context": f"Question: what is {i} and {i + 1}?\nAnswer:", "continuation": f"text {i}"} for i in range(11)]
    for name, rows in (("c", choices), ("w", schema), ("j", words)):
        (folder / f"eval_data/{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return folder


def three(bundle: Path, tokenizer: Tokenizer, folder: Path) -> list[Shared]:
    tasks = [task for task in read_tasks(bundle) if task.label in THREE]
    return core_tasks.write(tasks, tokenizer, folder, count=None, limit=640)


def test_the_files_are_the_items_as_transformers_reads_them(
    bundle: Path, tokenizer: Tokenizer, sealed: Callable[[str], Sealed], tmp_path: Path
) -> None:
    """Context and continuation, joined and cut as lm-eval does, are the tokens and the span that our scorer gets."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(exported(sealed("speedrun"), tmp_path / "hf"))
    for shared in three(bundle, tokenizer, tmp_path / "tasks"):
        described = yaml.load(
            (tmp_path / f"tasks/{shared.task.label}.yaml").read_text().replace("!function", ""), yaml.SafeLoader
        )
        assert described["task"] == f"nanochat_{shared.task.label}"
        lines = Path(described["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
        assert len(lines) == len(shared.items) == len(read_items(shared.task))
        for line, rows in zip(map(json.loads, lines), shared.items, strict=True):
            pairs = requests(line)
            assert len(pairs) == len(rows)
            for (context, continuation), row in zip(pairs, rows, strict=True):
                whole, before = (
                    theirs(text, add_special_tokens=False)["input_ids"] for text in (context + continuation, context.rstrip())
                )
                assert whole == row.ids
                assert before == row.ids[: row.start]
            if "tokens" in line:
                assert line["tokens"] == [row.end - row.start for row in rows]


def requests(line: dict[str, Any]) -> list[tuple[str, str]]:
    if "contexts" in line:
        return [(context, line["continuation"]) for context in line["contexts"]]
    return [(line["context"], continuation) for continuation in line.get("continuations", [line.get("continuation")])]


def test_what_lm_eval_would_read_otherwise_is_left_out_and_counted(bundle: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The name of a special token in a text, a character that the span cuts in two, and more tokens than the model has places."""
    rows = [
        {"query": "the dog", "choices": ["says <|bos|>", "sleeps"], "gold": 0},
        {"query": "the dog", "choices": ["é", "è"], "gold": 0},
        {"query": "the dog " * 60, "choices": ["runs", "sleeps"], "gold": 1},
        {"query": "the dog", "choices": ["runs", "sleeps"], "gold": 1},
    ]
    (bundle / "eval_data/c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = next(task for task in read_tasks(bundle) if task.label == "copa")
    (shared,) = core_tasks.write([task], tokenizer, tmp_path / "tasks", count=None, limit=60)
    assert (len(shared.items), shared.left_out, shared.gold) == (1, 3, [1])


def records(scores: list[list[tuple[float, bool]]], shared: Shared) -> list[dict[str, Any]]:
    """What lm-eval would write if it had these mean losses."""
    return [
        {
            "doc_id": i,
            "acc": 0.0,
            "resps": [
                [[str(-loss * (row.end - row.start)), str(exact)]] for (loss, exact), row in zip(item, rows, strict=True)
            ],
        }
        for i, (item, rows) in enumerate(zip(scores, shared.items, strict=True))
    ]


def test_another_judgement_is_told(bundle: Path, tokenizer: Tokenizer, sealed: Callable[[str], Sealed], tmp_path: Path) -> None:
    """A log-likelihood that is off, and an answer that is another one."""
    from nanochat.engine.scorer import Scorer

    model = sealed("speedrun").gpt
    shared = three(bundle, tokenizer, tmp_path / "tasks")[:1]
    scores = Scorer(model, dtype=torch.float32).spans(shared[0].items)
    tolerance = crosscheck.TOLERANCE[torch.float32]
    (same,) = crosscheck.compare(model, shared, {"copa": records(scores, shared[0])}, dtype=torch.float32)
    assert same.holds(tolerance)
    assert (same.ties, same.decided) == (0, 0)
    scores[3] = [(9.0 - loss, exact) for loss, exact in scores[3]]
    (other,) = crosscheck.compare(model, shared, {"copa": records(scores, shared[0])}, dtype=torch.float32)
    assert other.decided == 1
    assert other.difference > 0.1
    assert not other.holds(tolerance)


def test_an_environment_without_lm_eval_is_refused_with_what_to_do(
    bundle: Path, sealed: Callable[[str], Sealed], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sealed("speedrun")
    code = main(
        [
            "crosscheck",
            f"--model={model.model_dir}",
            f"--tokenizer={model.tokenizer_dir}",
            f"--core={bundle}",
            "--lm-eval=/bin/false",
            str(tmp_path / "out"),
        ]
    )
    assert code == 64
    assert "uv pip install --python lm-eval" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not has_lm_eval(), reason="needs lm-eval: set LM_EVAL_PYTHON to the Python of an environment that has it")
@pytest.mark.parametrize(("recipe", "dtype"), [("speedrun", "float32"), ("speedrun", "bfloat16"), (EVERY_SWITCH, "float32")])
def test_lm_eval_judges_as_we_do(
    bundle: Path, sealed: Callable[[str], Sealed], tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str, dtype: str
) -> None:
    model = sealed(recipe)
    given = [f"--model={model.model_dir}", f"--tokenizer={model.tokenizer_dir}", f"--core={bundle}", f"--lm-eval={LM_EVAL}"]
    code = main(["crosscheck", *given, f"--dtype={dtype}", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert code == 0, told
    assert f"Both agree within {crosscheck.TOLERANCE[getattr(torch, dtype)]:g} nats a token" in told.out
    for label in THREE:
        assert f"{label} " in told.out

"""The items of a CORE bundle as tasks of lm-eval, with nanochat's prompts: a YAML file and a JSON-lines file for each task.

lm-eval takes a context and a continuation as texts, CORE a span of tokens. The texts are therefore cut where the span begins, and an item
that lm-eval would make other tokens of is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.data.core_bundle import CoreTask, Item, read_items
from nanochat.engine.scorer import ScoredSequence
from nanochat.eval import core_prompts
from nanochat.tokenizer import Tokenizer

PREFIX = "nanochat_"  # of the names of the tasks, all of which have the tag `nanochat_core`
BOS = "<|bos|>"
# CORE takes the continuation with the least mean loss, which no metric of lm-eval does.
METRIC = '''\
"""CORE's judgement: the continuation with the least mean loss of a token is the answer."""


def least_mean_loss(doc, results):
    losses = [-total / count for (total, _), count in zip(results, doc["tokens"], strict=True)]
    return {"acc": float(losses.index(min(losses)) == doc["gold"])}
'''
_CHOICES = {"output_type": "multiple_choice", "process_results": "!function core_metric.least_mean_loss"}
# How lm-eval finds the texts of each kind in a line of the file.
_FORMS: dict[str, dict[str, str]] = {
    "multiple_choice": {**_CHOICES, "doc_to_text": "context", "doc_to_choice": "continuations", "doc_to_target": "gold"},
    "schema": {**_CHOICES, "doc_to_text": "gold", "doc_to_choice": "contexts", "doc_to_target": "continuation"},
    "language_modeling": {"output_type": "loglikelihood", "doc_to_text": "context", "doc_to_target": "continuation"},
}


@dataclass(frozen=True, slots=True)
class Shared:
    """The items of a task that both programs read as the same tokens, as our scorer takes them. `left_out` are not among them."""

    task: CoreTask
    items: list[list[ScoredSequence]]
    gold: list[int]
    left_out: int


def write(tasks: Sequence[CoreTask], tokenizer: Tokenizer, folder: Path, *, count: int | None, limit: int) -> list[Shared]:
    """Write the first `count` items of each task, with at most `limit` tokens each. Raises StageError that names a damaged line."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "core_metric.py").write_text(METRIC, encoding="utf-8")
    return [_write(task, tokenizer, folder, count, limit) for task in tasks]


def _write(task: CoreTask, tokenizer: Tokenizer, folder: Path, count: int | None, limit: int) -> Shared:
    items = read_items(task)
    lines, scored, golds, left_out = [], [], [], 0
    for index, item in enumerate(items[:count]):
        rows = _rows(task, items, index, item, tokenizer)
        texts = [_texts(row, tokenizer) for row in rows if len(row.ids) <= limit]
        pairs = [pair for pair in texts if pair]
        if len(pairs) < len(rows):
            left_out += 1
            continue
        gold = item.get("gold", 0)
        lines.append(json.dumps(_line(task, rows, pairs, gold), ensure_ascii=False) + "\n")
        scored.append(rows)
        golds.append(gold)
    data = folder / f"{task.label}.jsonl"
    data.write_text("".join(lines), encoding="utf-8")
    (folder / f"{task.label}.yaml").write_text(_yaml(task, data), encoding="utf-8")
    return Shared(task, scored, golds, left_out)


def _rows(task: CoreTask, items: Sequence[Item], index: int, item: Item, tokenizer: Tokenizer) -> list[ScoredSequence]:
    texts = core_prompts.prompts(task, item, core_prompts.shots_for(items, index, task.shots))
    return core_prompts.rows(task, tokenizer.encode_batch(texts), tokenizer.bos)


def _texts(row: ScoredSequence, tokenizer: Tokenizer) -> tuple[str, str] | None:
    """The context and the continuation of a row; None when lm-eval would read them as other tokens."""
    context, continuation = tokenizer.decode(row.ids[1 : row.start]), tokenizer.decode(row.ids[row.start :])
    if any(name in context + continuation for name in SPECIAL_TOKENS):
        return None  # transformers makes tokens of the names
    # lm-eval reads white space at the end of a context as the beginning of its continuation.
    before = [tokenizer.bos, *tokenizer.encode(context.rstrip())]
    if [tokenizer.bos, *tokenizer.encode(context + continuation)] != row.ids or before != row.ids[: row.start]:
        return None
    return BOS + context, continuation


def _line(task: CoreTask, rows: Sequence[ScoredSequence], pairs: Sequence[tuple[str, str]], gold: int) -> dict[str, Any]:
    contexts, continuations = [context for context, _ in pairs], [continuation for _, continuation in pairs]
    tokens = [row.end - row.start for row in rows]
    if task.kind == "schema":
        return {"contexts": contexts, "continuation": continuations[0], "gold": gold, "tokens": tokens}
    if task.kind == "multiple_choice":
        return {"context": contexts[0], "continuations": continuations, "gold": gold, "tokens": tokens}
    return {"context": contexts[0], "continuation": continuations[0]}


def _yaml(task: CoreTask, data: Path) -> str:
    described = {
        "task": PREFIX + task.label,
        "tag": "nanochat_core",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "num_fewshot": 0,  # the examples are in the contexts
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **_FORMS[task.kind],
    }
    text: str = yaml.safe_dump(described, sort_keys=False)
    return text.replace("'!function core_metric.least_mean_loss'", "!function core_metric.least_mean_loss")

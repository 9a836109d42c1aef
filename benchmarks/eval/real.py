"""The examples of a folder of real data, laid out as ../shared/data: `core/` and the folders of the chat tasks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import rustbpe
from benchmarks.eval.workload import ChatTask, CoreTask, taken
from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.data.core_bundle import ROWS, read_items, read_tasks
from nanochat.eval import core_prompts
from nanochat.tasks import registry
from nanochat.tasks.base import reference
from nanochat.tasks.catalog import BY_NAME, TASKS, find_in_folder
from nanochat.tasks.source import TaskSource
from nanochat.tokenizer import Tokenizer

WORDS = "words/words_alpha.txt"


def tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """A tokenizer of this size, trained on the folder's CORE files."""
    texts: list[str] = []
    for path in sorted((folder / "core/eval_data").rglob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts += lines[:: max(1, len(lines) // 500)]
    return Tokenizer.from_merges(rustbpe.train(texts, vocab_size - len(SPECIAL_TOKENS)))


def core(folder: Path, encoder: Tokenizer, share: float, least: int, limit: int) -> tuple[list[CoreTask], float]:
    """The items of every task that the folder has, and the seconds that it took to make tokens of them."""
    found, seconds = [], 0.0
    for task in read_tasks(folder / "core"):
        if not task.file.is_file():  # perhaps a few rows of it are there
            samples = sorted(task.file.parent.glob(f"{task.file.stem}_sample*.jsonl"))
            if not samples:
                continue
            task = replace(task, file=samples[0])
        items = read_items(task)
        count = taken(len(items), share, least)
        start = time.perf_counter()
        texts = [core_prompts.prompts(task, items[i], core_prompts.shots_for(items, i, task.shots)) for i in range(count)]
        encoded = iter(encoder.encode_batch([text for group in texts for text in group]))
        rows = [core_prompts.rows(task, [next(encoded) for _ in group], encoder.bos) for group in texts]
        seconds += time.perf_counter() - start
        found.append(CoreTask(task.label, ROWS[task.label], [[row.cropped(limit) for row in group] for group in rows]))
    return found, seconds


def chat(folder: Path, encoder: Tokenizer, share: float, least: int, context: int) -> list[ChatTask]:
    """The problems of every task of ChatCORE that the folder has. An answer has as many tokens as the reference."""
    files = {key: tuple(paths) for key, paths in find_in_folder(folder).items()}
    words = folder / WORDS if (folder / WORDS).is_file() else None
    source = TaskSource(files, folder, words, words)
    found = []
    for name in [task.name for task in TASKS if task.in_chatcore]:
        hub = BY_NAME[name].kind == "hub"
        if f"{name}/test" not in files if hub else source.words_file is None:
            continue
        task = registry.named(name, "test", source, size=256)
        count = taken(len(task), share, least)
        generative = task.eval_type == "generative"
        prompts, answers = [], []
        for index in range(count):
            prompt, answer = encoder.render_for_completion(task[index]), len(encoder.encode(reference(task[index])))
            if len(prompt) + (answer if generative else 0) < context:
                prompts.append(prompt)
                answers.append(answer)
        found.append(ChatTask(name, len(task), prompts, answers if generative else None))
    return found

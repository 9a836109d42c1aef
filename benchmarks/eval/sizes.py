"""Write `sizes.json` anew: python -m benchmarks.eval.sizes FOLDER TOKENIZER, with the folder of a trained tokenizer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.eval import real
from benchmarks.eval.workload import SIZES, CoreTask
from nanochat.engine.scorer import common_prefix
from nanochat.tokenizer import Tokenizer

READ = 512  # examples of each task, in its shuffled order
SAMPLES = 64  # sizes that are kept of each task
LONGEST = 20_480


def main() -> None:
    """Count the tokens of many examples with the tokenizer, and keep evenly spaced ones, ordered by length."""
    folder, encoder = Path(sys.argv[1]), Tokenizer.load(Path(sys.argv[2]))
    tasks, _ = real.core(folder, encoder, 1e-9, READ, LONGEST)
    core = {task.label: {"rows": task.rows, "sizes": sampled(_sizes(task))} for task in tasks}
    chat = {
        task.name: {
            "rows": task.rows,
            "generative": task.answers is not None,
            "sizes": sampled([[len(p), n] for p, n in zip(task.prompts, task.answers or [1] * len(task.prompts), strict=True)]),
        }
        for task in real.chat(folder, encoder, 1e-9, READ, LONGEST)
    }
    lines = [f' "{part}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in tasks.items()) + "\n }"
             for part, tasks in (("core", core), ("chat", chat))]  # fmt: skip
    SIZES.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _sizes(task: CoreTask) -> list[list[int]]:
    """Of each item, as `workload` reads them."""
    found = []
    for spans in task.items:
        ids = [span.ids for span in spans]
        shared = min(common_prefix(ids), min(map(len, ids)) - 1) if len(ids) > 1 else spans[0].start
        own = [len(tokens) - shared for tokens in ids]
        lengths = [span.end - span.start for span in spans]
        found.append([shared, 0 if lengths == own else lengths[0], *own])
    return found


def sampled(sizes: list[Any]) -> list[Any]:
    ordered = sorted(sizes, key=lambda size: (sum(size), size))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * SAMPLES)] for i in range(SAMPLES)] if len(ordered) > SAMPLES else ordered


if __name__ == "__main__":
    main()

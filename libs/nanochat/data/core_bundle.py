"""Read the CORE bundle: `core.yaml`, `eval_meta_data.csv` and one JSON-lines file per task."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import yaml

from nanochat.contract.contract import StageError
from nanochat.tasks.catalog import CORE_CONFIG

Kind = Literal["multiple_choice", "schema", "language_modeling"]
Item = dict[str, Any]

# The 22 tasks of CORE (Li et al. 2024, DataComp-LM) and the number of rows in each. A file with fewer rows is incomplete.
ROWS = {
    "hellaswag_zeroshot": 10_042,
    "jeopardy": 2_117,
    "bigbench_qa_wikidata": 20_321,
    "arc_easy": 2_376,
    "arc_challenge": 1_172,
    "copa": 100,
    "commonsense_qa": 1_221,
    "piqa": 1_838,
    "openbook_qa": 500,
    "lambada_openai": 5_153,
    "hellaswag": 10_042,
    "winograd": 273,
    "winogrande": 1_267,
    "bigbench_dyck_languages": 1_000,
    "agi_eval_lsat_ar": 230,
    "bigbench_cs_algorithms": 1_320,
    "bigbench_operators": 210,
    "bigbench_repeat_copy_logic": 32,
    "squad": 10_570,
    "coqa": 7_983,
    "boolq": 3_270,
    "bigbench_language_identification": 10_000,
}
# Accuracies of guessing that DCLM corrected after nanochat's bundle was made (its table of tasks, version 2).
CORRECTED = {"commonsense_qa": 0.403, "agi_eval_lsat_ar": 0.25, "bigbench_language_identification": 0.25}
# The texts that an item of each kind must have, and its list of options, of which `gold` is the number of the right one.
FIELDS: dict[Kind, tuple[tuple[str, ...], str | None]] = {
    "multiple_choice": (("query",), "choices"),
    "schema": (("continuation",), "context_options"),
    "language_modeling": (("context", "continuation"), None),
}
TOLD = 3  # problems that a message names
ORDER_SEED = 1337  # of the order in which nanochat takes the items


@dataclass(frozen=True, slots=True)
class CoreTask:
    """One in-context task: its file, the form of its prompts, and the accuracy of guessing (`baseline`, 0 to 1)."""

    label: str
    file: Path
    kind: Kind
    shots: int
    delimiter: str
    baseline: float


def bundle_root(artifact: Path) -> Path | None:
    """The folder of the bundle, as named in the `core` artifact of the data stage; None when the run has no bundle."""
    root = json.loads((artifact / "core.json").read_text(encoding="utf-8"))["root"]
    return Path(root) if root else None


def bundle_in(folder: Path) -> Path | None:
    """The bundle that a folder is, or that a folder in it is; None if there is none."""
    places = (folder, *sorted(p for p in folder.iterdir() if p.is_dir()))
    return next((place for place in places if (place / CORE_CONFIG).is_file()), None)


def read_tasks(root: Path, *, corrected: bool = False) -> list[CoreTask]:
    """The tasks of the bundle that belong to CORE, in the bundle's order. A task's file may be missing.

    `corrected` replaces the bundle's baselines by those that DCLM corrected later. Raises StageError when the folder is not a CORE bundle.
    """
    try:
        config = yaml.safe_load((root / CORE_CONFIG).read_text(encoding="utf-8"))
        with (root / "eval_meta_data.csv").open(encoding="utf-8", newline="") as file:
            baselines = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)}
        baselines |= CORRECTED if corrected else {}
        return [
            CoreTask(
                entry["label"],
                root / "eval_data" / entry["dataset_uri"],
                entry["icl_task_type"],
                entry["num_fewshot"][0],
                entry.get("continuation_delimiter", " "),
                baselines[entry["label"]],
            )
            for entry in config["icl_tasks"]
            if entry["label"] in ROWS
        ]
    except (OSError, yaml.YAMLError, KeyError, ValueError, TypeError) as err:
        raise StageError(
            f"{root} is not a CORE bundle: {type(err).__name__}: {err}",
            code="core_bundle",
            hint="set data.core to a folder that contains core.yaml, eval_meta_data.csv and eval_data/",
        ) from err


def read_items(task: CoreTask) -> list[Item]:
    """Read all items of a task and shuffle them with a fixed seed. Raises StageError that names a damaged line."""
    items = list(_items(task))
    random.Random(ORDER_SEED).shuffle(items)
    return items


def problems(root: Path, lines: int | None = None) -> dict[str, str]:
    """What keeps CORE from being measured with this bundle, by task; empty when all 22 can run whole.

    Reads the first `lines` lines of each file, all without it. Raises StageError when the folder is not a CORE bundle.
    """
    tasks = {task.label: task for task in read_tasks(root)}
    found = {label: f"{label}: core.yaml does not list it" for label in ROWS if label not in tasks}
    for label, task in tasks.items():
        if not task.file.is_file():
            found[label] = f"{label}: no file {task.file}"
            continue
        try:
            for _ in islice(_items(task), lines):
                pass
        except StageError as err:
            found[label] = f"{label}: {err}"
            continue
        with task.file.open("rb") as file:
            rows = sum(1 for line in file if line.strip())
        if rows < ROWS[label]:
            found[label] = f"{label}: {task.file} has {rows:,} of {ROWS[label]:,} rows"
    return {label: found[label] for label in ROWS if label in found}


def told(found: Mapping[str, str]) -> str:
    """The problems in one line: all of them, or the first ones and how many more there are."""
    first = list(found.values())[:TOLD]
    return "CORE cannot be measured: " + "; ".join(first) + (f"; and {len(found) - TOLD} more" if len(found) > TOLD else "")


def _items(task: CoreTask) -> Iterator[Item]:
    """The items in the order of the file. Raises StageError at the first line that is none."""
    with task.file.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                wrong = _wrong(task.kind, item)
            except (ValueError, RecursionError) as err:
                kind = "UTF-8" if isinstance(err, UnicodeDecodeError) else "JSON"
                raise _damaged(task, number, f"is not {kind}") from err
            if wrong:
                raise _damaged(task, number, wrong)
            yield item


def _wrong(kind: Kind, item: Any) -> str | None:
    """What is wrong with an item of a kind of task; None when nothing is."""
    if not isinstance(item, dict):
        return "is not an object"
    texts, options = FIELDS[kind]
    for key in texts:
        if not isinstance(item.get(key), str):
            return f"has no text {key!r}"
    if options is None:
        return None
    several = item.get(options)
    if not isinstance(several, list) or len(several) < 2 or not all(isinstance(one, str) for one in several):
        return f"has no list of at least two texts {options!r}"
    gold = item.get("gold")
    if type(gold) is not int or not 0 <= gold < len(several):
        return f"has gold {gold!r}, which is not the number of one of its {options}"
    return None


def _damaged(task: CoreTask, number: int, what: str) -> StageError:
    return StageError(f"{task.file} line {number} {what}", code="core_bundle", hint="fetch the bundle again")

"""Read the CORE bundle: `core.yaml`, `eval_meta_data.csv` and one JSON-lines file per task."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from nanochat.contract.contract import StageError

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


def read_tasks(root: Path) -> list[CoreTask]:
    """The tasks of the bundle that belong to CORE, in the bundle's order. A task's file may be missing.

    Raises StageError when the folder is not a CORE bundle.
    """
    try:
        config = yaml.safe_load((root / "core.yaml").read_text(encoding="utf-8"))
        with (root / "eval_meta_data.csv").open(encoding="utf-8", newline="") as file:
            baselines = {row["Eval Task"]: float(row["Random baseline"]) / 100 for row in csv.DictReader(file)}
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
    items = []
    with task.file.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                items.append(json.loads(line))
            except json.JSONDecodeError as err:
                raise StageError(
                    f"{task.file} line {number} is not JSON", code="core_bundle", hint="fetch the bundle again"
                ) from err
    random.Random(ORDER_SEED).shuffle(items)
    return items

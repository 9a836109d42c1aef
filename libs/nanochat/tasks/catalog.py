"""The data sets behind the tasks: where each split is on the hub, and what it is called in a folder. Imports no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORE_CONFIG = "core.yaml"


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a data set: on the hub `repo`/`config`/`split`, in a folder every file that matches one of `names`."""

    repo: str
    config: str
    split: str
    names: tuple[str, ...]


def _arc(config: str, split: str) -> Split:
    return Split("allenai/ai2_arc", config, split, (f"arc/{config}-{split}.*",))


# Key: task name as in a recipe, slash, split. GPTeacher and SGD dialogues stand in for SmolTalk in a folder without it.
SPLITS: dict[str, Split] = {
    "smoltalk/train": Split("HuggingFaceTB/smol-smoltalk", "default", "train", ("smoltalk/train*", "chat/*_train.jsonl")),
    "smoltalk/test": Split("HuggingFaceTB/smol-smoltalk", "default", "test", ("smoltalk/test*", "chat/*_test.jsonl")),
    "mmlu/auxiliary_train": Split("cais/mmlu", "auxiliary_train", "train", ("mmlu/auxiliary_train*",)),
    "mmlu/dev": Split("cais/mmlu", "all", "dev", ("mmlu/dev.*",)),
    "mmlu/test": Split("cais/mmlu", "all", "test", ("mmlu/test.*",)),
    "arc_easy/train": _arc("ARC-Easy", "train"),
    "arc_easy/test": _arc("ARC-Easy", "test"),
    "arc_challenge/train": _arc("ARC-Challenge", "train"),
    "arc_challenge/test": _arc("ARC-Challenge", "test"),
    "gsm8k/train": Split("openai/gsm8k", "main", "train", ("gsm8k/train.*",)),
    "gsm8k/test": Split("openai/gsm8k", "main", "test", ("gsm8k/test.*",)),
    "humaneval/test": Split(
        "openai/openai_humaneval", "openai_humaneval", "test", ("humaneval/HumanEval.*", "humaneval/test.*")
    ),
}
GENERATED = ("identity", "spelling", "counting", "sums")
GENERATED_SPLITS = ("train", "test")
_READABLE = (".jsonl", ".parquet")


def find_in_folder(root: Path) -> dict[str, list[Path]]:
    """What a folder of task data holds, by key; splits that it lacks are absent."""
    found = {key: _matches(root, split) for key, split in SPLITS.items()}
    return {key: paths for key, paths in found.items() if paths}


def _matches(root: Path, split: Split) -> list[Path]:
    """The files of the first name that matches any."""
    for name in split.names:
        paths = sorted(p.resolve() for p in root.glob(name) if p.suffix in _READABLE and p.is_file())
        if paths:
            return paths
    return []


def splits_of(task: str) -> list[str]:
    """The splits a task has, by the task's name in a recipe."""
    if task in GENERATED:
        return list(GENERATED_SPLITS)
    return [key.partition("/")[2] for key in SPLITS if key.startswith(f"{task}/")]


def is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))

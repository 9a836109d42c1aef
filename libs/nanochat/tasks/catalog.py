"""The one table of tasks. The recipe's choices, the planner, the loaders, the evaluations and the report all read it.

To add a task, write its class in a file of this folder and add its row here (CONTRIBUTING.md has a worked example).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["hub", "generated", "file"]
# How an answer is judged: the right letter of a choice, the same number after `####`, the same text, or passing unit tests.
Judge = Literal["letter", "number", "text", "tests"]

CORE_CONFIG = "core.yaml"
GENERATED_ROWS = 1000  # rows of a generated task when a recipe names no size
GENERATED_SPLITS = ("train", "test")
_READABLE = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a data set: `repo`/`config`/`split` on the hub, every file that matches one of `names` in a folder."""

    repo: str
    config: str
    split: str
    names: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class TaskDef:
    """One task: where its rows come from, how an answer is judged, and how a report names it.

    `loads` is its class, as `module:Class` in this folder. `judge` is None for a task that is only trained on. `baseline`
    is the accuracy of guessing. `in_chatcore`: ChatCORE is the mean centered accuracy over the tasks that say so.
    `word_list`: it draws words from the recipe's `data.words`.
    """

    name: str
    title: str
    kind: Kind
    loads: str
    splits: Mapping[str, Split] = field(default_factory=dict)
    judge: Judge | None = None
    baseline: float = 0.0
    in_chatcore: bool = False
    word_list: bool = False

    @property
    def split_names(self) -> tuple[str, ...]:
        return GENERATED_SPLITS if self.kind == "generated" else tuple(self.splits)

    @property
    def is_trainable(self) -> bool:
        """Whether it has anything but a test split."""
        return self.kind == "file" or any(split != "test" for split in self.split_names)

    def rows(self, split: str, size: int | None = None) -> int | None:
        """Rows of a split; of a generated task `size` of them. None for a user's file, which is not read yet."""
        if self.kind == "generated":
            return size or GENERATED_ROWS
        return self.splits[split].rows if split in self.splits else None


def _arc(config: str, train: int, test: int) -> dict[str, Split]:
    def split(name: str, rows: int) -> Split:
        return Split("allenai/ai2_arc", config, name, (f"arc/{config}-{name}.*",), rows)

    return {"train": split("train", train), "test": split("test", test)}


# In the order in which a report lists them.
TASKS: tuple[TaskDef, ...] = (
    TaskDef("arc_easy", "ARC-Easy", "hub", "arc:Arc", _arc("ARC-Easy", 2_251, 2_376), "letter", 0.25, in_chatcore=True),
    TaskDef(
        "arc_challenge",
        "ARC-Challenge",
        "hub",
        "arc:Arc",
        _arc("ARC-Challenge", 1_119, 1_172),
        "letter",
        0.25,
        in_chatcore=True,
    ),
    TaskDef(
        "mmlu",
        "MMLU",
        "hub",
        "mmlu:Mmlu",
        {
            "auxiliary_train": Split("cais/mmlu", "auxiliary_train", "train", ("mmlu/auxiliary_train*",), 99_842),
            "dev": Split("cais/mmlu", "all", "dev", ("mmlu/dev.*",), 285),
            "test": Split("cais/mmlu", "all", "test", ("mmlu/test.*",), 14_042),
        },
        "letter",
        0.25,
        in_chatcore=True,
    ),
    TaskDef(
        "gsm8k",
        "GSM8K",
        "hub",
        "gsm8k:Gsm8k",
        {
            "train": Split("openai/gsm8k", "main", "train", ("gsm8k/train.*",), 7_473),
            "test": Split("openai/gsm8k", "main", "test", ("gsm8k/test.*",), 1_319),
        },
        "number",
        in_chatcore=True,
    ),
    TaskDef(
        "humaneval",
        "HumanEval",
        "hub",
        "humaneval:HumanEval",
        {
            "test": Split(
                "openai/openai_humaneval", "openai_humaneval", "test", ("humaneval/HumanEval.*", "humaneval/test.*"), 164
            )
        },
        "tests",
        in_chatcore=True,
    ),
    TaskDef(
        "spellingbee", "SpellingBee", "generated", "spellingbee:SpellingBee", judge="number", in_chatcore=True, word_list=True
    ),
    TaskDef("simplespelling", "SimpleSpelling", "generated", "spellingbee:SimpleSpelling", word_list=True),
    TaskDef("counting", "Letter counting", "generated", "counting:Counting", judge="number"),
    TaskDef("spelling", "Spelling", "generated", "spelling:Spelling", judge="text"),
    TaskDef("sums", "Sums", "generated", "sums:Sums", judge="number"),
    TaskDef("identity", "Identity", "generated", "identity:Identity"),
    # A folder without SmolTalk may hold other dialogues, as GPTeacher's and SGD's, below chat/.
    TaskDef(
        "smoltalk",
        "SmolTalk",
        "hub",
        "conversations:Conversations",
        {
            "train": Split(
                "HuggingFaceTB/smol-smoltalk", "default", "train", ("smoltalk/train*", "chat/*_train.jsonl"), 460_341
            ),
            "test": Split("HuggingFaceTB/smol-smoltalk", "default", "test", ("smoltalk/test*", "chat/*_test.jsonl"), 24_229),
        },
    ),
    TaskDef("jsonl", "A file of conversations", "file", "conversations:OwnConversations"),
)
BY_NAME: dict[str, TaskDef] = {task.name: task for task in TASKS}
TRAINABLE = tuple(task.name for task in TASKS if task.is_trainable)
JUDGED = tuple(task.name for task in TASKS if task.judge)
# Reinforcement learning needs a reward that sampling reaches now and then: a number at the end of free text.
REWARDED = tuple(task.name for task in TASKS if task.judge == "number" and task.is_trainable)
# Every split on the hub, by `task/split`.
SPLITS: dict[str, Split] = {f"{task.name}/{name}": split for task in TASKS for name, split in task.splits.items()}


def find_in_folder(root: Path) -> dict[str, list[Path]]:
    """The files of each split that a folder of task data holds, by `task/split`; splits that it lacks are absent."""
    found = {key: _matches(root, split) for key, split in SPLITS.items()}
    return {key: paths for key, paths in found.items() if paths}


def _matches(root: Path, split: Split) -> list[Path]:
    """The files that match the first of the split's names that any file matches."""
    for name in split.names:
        paths = sorted(p.resolve() for p in root.glob(name) if p.suffix in _READABLE and p.name[0] != "." and p.is_file())
        if paths:
            return paths
    return []


def is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))

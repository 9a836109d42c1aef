"""The `tasks` artifact of the data stage, from which the tasks of a run read their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nanochat.contract.contract import RESTORE, StageError, write_json
from nanochat.tasks.catalog import is_url
from nanochat.tasks.chat_file import own_path
from nanochat.tasks.rows import Rows

INDEX = "tasks.json"
WORDS = "words.txt"
LEAST_WORDS = 100  # of a word list: some are held out


@dataclass(frozen=True)
class TaskSource:
    """`files` are by `task/split`, as in `catalog.SPLITS`; a user's file that was fetched is there by its URL.

    Relative paths of a recipe start at `root`, the user's folder, if any.
    """

    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    root: Path | None = None
    words_file: Path | None = None
    word_list_file: Path | None = None  # the recipe's data.words

    @classmethod
    def load(cls, artifact_dir: Path) -> TaskSource:
        """Read `tasks.json`. Raises StageError naming a file that is missing or no longer has its size."""
        table = json.loads((artifact_dir / INDEX).read_text(encoding="utf-8"))
        files = {key: tuple(_as_named(entry) for entry in entries) for key, entries in table["files"].items()}
        word_list = table.get("word_list")
        return cls(
            files,
            Path(table["root"]) if table["root"] else None,
            Path(table["words"]),
            _as_named(word_list) if word_list else None,
        )

    def own_file(self, place: str) -> Path:
        """A user's file by its path or URL. Raises StageError for a URL that the data stage has not fetched."""
        if is_url(place):
            if place not in self.files:
                raise StageError(f"{place} was not fetched", code="task_data_missing", hint=RESTORE)
            return self.files[place][0]
        return own_path(place, self.root)

    def rows(self, key: str) -> Rows:
        """The rows of a split. Raises StageError when the source lacks it."""
        if key not in self.files:
            known = ", ".join(sorted(self.files)) or "none"
            raise StageError(
                f"the task data lack {key}; they have: {known}", code="task_data_missing", hint="set data.tasks to where it is"
            )
        return Rows.read(self.files[key])

    @cached_property
    def words(self) -> list[str]:
        """Words of the corpus, most frequent first. Raises StageError when there are none."""
        words = self.words_file.read_text(encoding="utf-8").split() if self.words_file else []
        if not words:
            raise StageError("the word list is empty", code="no_words", hint="use text with lower-case English words")
        return words


def write_source(
    directory: Path,
    files: Mapping[str, Iterable[Path]],
    root: Path | None,
    words: Iterable[str],
    word_list: Path | None = None,
) -> None:
    """Write `tasks.json` and `words.txt`, which `TaskSource.load` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    words_file = directory.resolve() / WORDS
    words_file.write_text("".join(f"{w}\n" for w in words), encoding="utf-8")
    table = {
        "root": str(root) if root else None,
        "files": {key: [_named(path) for path in paths] for key, paths in sorted(files.items())},
        "words": str(words_file),
        "word_list": _named(word_list) if word_list else None,
    }
    write_json(directory / INDEX, table)


def read_word_list(path: Path) -> tuple[str, ...]:
    """The words of a file, one on each line, in its order. Raises StageError."""
    try:
        words = tuple(word for line in path.read_text(encoding="utf-8").splitlines() if (word := line.strip()))
    except (OSError, UnicodeDecodeError) as err:
        raise StageError(f"cannot read the word list {path}: {err}", code="no_words", hint="check data.words") from err
    strange = next((word for word in words if not word.isalpha()), None)
    if strange is not None or len(words) < LEAST_WORDS:
        problem = f"{strange!r} is no word" if strange is not None else f"it has only {len(words)} words"
        raise StageError(
            f"the word list {path}: {problem}", code="no_words", hint=f"one word on each line, at least {LEAST_WORDS} of them"
        )
    return words


def _named(path: Path) -> dict[str, Any]:
    return {"path": str(path), "bytes": path.stat().st_size}


def _as_named(entry: dict[str, Any]) -> Path:
    path = Path(entry["path"])
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        raise StageError(f"task data {path} are missing or have changed", code="task_data_changed", hint=RESTORE)
    return path

"""A user's folder of text: which of its files are trained on, and which are kept for validation.

Hugging Face names its files `train-00000-of-00002.parquet`, `validation-…` and `test-…`; other corpora end in `-train` and
`-valid`. Validation files are those that such a name marks; without one, the test files; without these, the last file by name.
Of a single file, and of plain text, the last twentieth is held out instead. Test files are never trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanochat.contract.contract import StageError
from nanochat.contract.paths import path_of
from nanochat.data.shards import COLUMN, check_shard, is_standard

Form = Literal["parquet", "jsonl", "txt"]
# The first form that a folder holds is read: a README.txt beside shards is no training text.
SUFFIXES: dict[Form, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".jsonl.zst", ".jsonl.gz"),
    "txt": (".txt", ".txt.zst", ".txt.gz"),
}
READABLE = "{}, {} or {}".format(*(suffixes[0] for suffixes in SUFFIXES.values()))
_VAL = frozenset({"validation", "valid", "val", "dev"})
_TEST = frozenset({"test"})
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Part:
    """Files that become one shard. `share`: the documents of them that it holds, those before or in the last twentieth."""

    files: tuple[Path, ...]
    form: Form
    column: str
    share: Literal["all", "first", "last"] = "all"

    @property
    def is_standard(self) -> bool:
        """Whether it is a shard already, which is read in place."""
        return self.form == "parquet" and self.share == "all" and is_standard(self.files[0], self.column)


@dataclass(frozen=True, slots=True)
class TextFolder:
    train: list[Part]
    val: list[Part]


def read_folder(folder: str | Path, column: str = COLUMN) -> TextFolder:
    """Sort the files of a folder, in the order of their names, into parts to train and to validate on.

    Reads parquet footers, but nothing of the other forms: the data stage checks their lines. Raises StageError when the folder
    is missing or has no text, when a file is not a usable shard, or when one side holds no documents.
    """
    root = path_of(folder)
    if not root.is_dir():
        raise StageError(f"no folder {root}", code="folder_missing", hint="set data.source to a folder of text")
    form, paths = _files(root)
    rows = {p: check_shard(p, column).num_rows for p in paths} if form == "parquet" else {p: p.stat().st_size for p in paths}
    train, val = _split(paths)
    if form == "txt" or len(paths) == 1:
        found = _held_out(form, train, val, column)
    else:
        found = TextFolder([Part((p,), form, column) for p in train], [Part((p,), form, column) for p in val])
    if len(paths) == 1 and form == "parquet" and rows[paths[0]] == 1:
        raise StageError(
            f"{paths[0]} holds one document, so nothing is left for validation", code="no_val_shard", hint="add more text"
        )
    if not any(rows[p] for p in train):
        raise StageError(f"the train shards in {root} hold no documents", code="empty_corpus")
    if val and not any(rows[p] for p in val):
        raise StageError(f"the validation shard {named(val)} holds no documents", code="empty_corpus")
    return found


def folder_shards(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The (train, val) files of a folder of standard shards. Raises StageError, also when a file is none."""
    found = read_folder(folder)
    for part in (*found.train, *found.val):
        if not part.is_standard:
            raise StageError(
                f"{named(part.files)} would have to be rewritten as shards, which only the data stage does",
                code="no_shards",
                hint=f"give a folder of two or more parquet files with a column {COLUMN!r} of strings",
            )
    return [p.files[0] for p in found.train], [p.files[0] for p in found.val]


def _files(root: Path) -> tuple[Form, list[Path]]:
    # macOS leaves ._name beside each file that it copies, Spark writes _SUCCESS and _metadata.
    # Names are kept: in the cache of Hugging Face they are links to files without one.
    seen = sorted(p for p in root.resolve().iterdir() if p.name[0] not in "._" and p.is_file())
    for form, suffixes in SUFFIXES.items():
        if paths := [p for p in seen if p.name.endswith(suffixes)]:
            return form, paths
    below = sorted(p.name for p in root.iterdir() if p.is_dir() and any(p.glob("*.parquet")))
    raise StageError(
        f"folder {root} holds no {READABLE} file",
        code="no_shards",
        hint=f"its folder {below[0]} holds shards: give that one" if below else f"put files with a {COLUMN!r} column there",
    )


def _split(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """(train, val) by name; `val` is empty if no name decides and there is only one file."""
    val, test = [p for p in paths if _is_marked(p, _VAL)], [p for p in paths if _is_marked(p, _TEST)]
    train = [p for p in paths if p not in val and p not in test]
    if train and (val or test):
        return train, val or test
    return (paths[:-1], paths[-1:]) if len(paths) > 1 else (paths, [])


def _is_marked(path: Path, words: frozenset[str]) -> bool:
    """Whether the first or the last word of the name, numbers and "of" aside, is one of `words`."""
    found = [w for w in _WORD.findall(path.name.partition(".")[0].lower()) if w != "of"]
    return bool(found) and (found[0] in words or found[-1] in words)


def _held_out(form: Form, train: list[Path], val: list[Path], column: str) -> TextFolder:
    if val and _is_marked(val[0], _VAL | _TEST):
        return TextFolder([Part(tuple(train), form, column)], [Part(tuple(val), form, column)])
    files = tuple(train + val)
    return TextFolder([Part(files, form, column, "first")], [Part(files, form, column, "last")])


def named(paths: Sequence[Path]) -> str:
    """The names of files for a message: of many, the first three."""
    return ", ".join(p.name for p in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")

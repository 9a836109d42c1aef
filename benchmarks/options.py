"""The command line of every benchmark: the options that all share, and value types that refuse a bad value in one line."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from benchmarks.process import ROOT

DATA = ROOT.parent / "shared" / "data" / "pretrain"  # read without --data, where it exists


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of every benchmark. A benchmark with options of its own has a subclass."""

    quick: bool
    record: bool
    commit: str | None


SomeOptions = TypeVar("SomeOptions", bound=Options)


class Parser(argparse.ArgumentParser):
    """Has --quick, --record and --commit. A bad option is one line on stderr and exit code 2."""

    def __init__(self, bench: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m benchmarks.{bench}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--quick", action="store_true", help="small sizes: a smoke check of about a minute on two CPU cores")
        self.add_argument("--record", action="store_true", help="also write benchmarks/results/<benchmark>-<device>.json")
        self.add_argument(
            "--commit", type=commit_hash, metavar="HASH", help="commit to record, for a copy of the tree without its history"
        )

    def add_model(self) -> None:
        """--recipe and --depth, for a benchmark of a model with random weights."""
        self.add_argument(
            "--recipe",
            choices=["speedrun", "d26", "run1000", "modern", "tiny"],
            metavar="NAME",
            help="whose shape the model has (speedrun on a GPU, tiny on a CPU)",
        )
        self.add_argument("--depth", type=positive_int, metavar="N", help="layers (20 on a GPU, 4 on a CPU or with --quick)")

    def add_dtype(self) -> None:
        self.add_argument(
            "--dtype", choices=["bf16", "fp32"], metavar="NAME", help="bf16 or fp32 (what the device multiplies best)"
        )

    def parse(self, kind: type[SomeOptions], argv: list[str] | None) -> SomeOptions:
        return kind(**vars(self.parse_args(argv)))

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


# -- types of values: each raises ArgumentTypeError, which argparse reports with the option's name --


def positive_int(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def positive_ints(text: str) -> list[int]:
    return [positive_int(part) for part in text.split(",")]


def commit_hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{7,40}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a commit hash")
    return text


def folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return path


def shards_folder(text: str) -> Path:
    """A folder of parquet shards with a column `text`, the last of them for validation."""
    from nanochat.contract.contract import StageError  # not above: options without a folder are parsed in a tenth of the time
    from nanochat.data.folder import folder_shards

    try:
        folder_shards(text)
    except StageError as err:
        raise argparse.ArgumentTypeError(str(err)) from err
    return Path(text).expanduser()


def names_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    known = list(known)

    def names(text: str) -> list[str]:
        found = split_names(text)
        if problem := unknown_names(found, known):
            raise argparse.ArgumentTypeError(problem)
        return found

    return names


def split_names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def unknown_names(names: Iterable[str], known: Iterable[str]) -> str | None:
    """What to tell a person who gave a name that is not in `known`; None when all are."""
    known = list(known)
    unknown = [name for name in names if name not in known]
    return f"unknown: {', '.join(map(repr, unknown))}; known: {', '.join(known)}" if unknown else None


def default_data() -> Path | None:
    return DATA if len(list(DATA.glob("*.parquet"))) >= 2 else None

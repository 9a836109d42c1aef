"""`python -m nanochat.chats check FILE`: what the command `nanochat data check` starts. Needs no service and no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nanochat.chats import found
from nanochat.chats.check import check
from nanochat.chats.lines import lines
from nanochat.chats.overlap import Questions
from nanochat.config.recipe import ModelSpec
from nanochat.contract.contract import Exit, StageError


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except StageError as err:
        hint = f". {err.hint}" if err.hint else ""
        sys.stderr.write(f"nanochat: {err}{hint}\n")
        return Exit.BAD_INPUT
    except OSError as err:  # a folder that may not be read, a disk that fails
        sys.stderr.write(f"nanochat: {err}\n")
        return Exit.FAILED


def _check(args: argparse.Namespace) -> int:
    source = found.task_source(args.tasks)
    checked = check(
        args.file,
        found.tokenizer(args.tokenizer),
        args.context,
        Questions.of(source[0]) if source and source[0].files else None,
    )
    if args.json:
        sys.stdout.write(checked.model_dump_json() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines(checked)))
    return Exit.OK if checked.is_good else Exit.FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nanochat.chats", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looks = argparse.ArgumentParser(add_help=False)
    looks.add_argument("--tokenizer", type=Path, help="folder of a tokenizer (default: that of the newest run here)")
    looks.add_argument("--tasks", type=Path, help="folder of task data (default: those of the newest run here)")
    looks.add_argument("--context", type=_length, default=ModelSpec().seq_len, help="tokens of a row that are kept")
    looks.add_argument("--json", action="store_true")
    one = commands.add_parser("check", parents=[looks])
    one.add_argument("file", type=Path)
    one.set_defaults(run=_check)
    return parser


def _length(text: str) -> int:
    value = int(text)
    if not 0 < value <= 2**20:
        raise argparse.ArgumentTypeError(f"{text} is not a number of tokens from 1 to {2**20:,}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())

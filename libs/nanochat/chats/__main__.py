"""`python -m nanochat.chats check FILE`, `… inspect FILE|TASK`, `… identity --name NAME --facts FILE`. No service, no torch.

The commands `nanochat data check`, `nanochat inspect` and `nanochat identity` start it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from nanochat.chats import chosen, found, persona
from nanochat.chats.check import check
from nanochat.chats.lines import lines
from nanochat.chats.overlap import Questions
from nanochat.chats.rendering import rendered
from nanochat.config.recipe import ModelSpec
from nanochat.contract.contract import Exit, StageError, write_text
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import BY_NAME, TASKS
from nanochat.tasks.generated import TEST_SHARE
from nanochat.tasks.source import TaskSource


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except StageError as err:
        hint = f"; {err.hint}" if err.hint else ""
        sys.stderr.write(f"nanochat: {err}{hint}\n")
        return Exit.BAD_INPUT
    except OSError as err:  # a folder that may not be read, a disk that fails
        sys.stderr.write(f"nanochat: {err}\n")
        return Exit.FAILED


def _check(args: argparse.Namespace) -> int:
    evaluations = Questions.of(found.task_source(args.tasks), found.core(args.core, args.tasks))
    checked = check(args.file, found.tokenizer(args.tokenizer), args.context, evaluations)
    if args.json:
        sys.stdout.write(checked.model_dump_json() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines(checked)))
    return Exit.OK if checked.is_good else Exit.FAILED


def _inspect(args: argparse.Namespace) -> int:
    made_with = found.tokenizer(args.tokenizer)
    if made_with is None:
        raise StageError(
            "no run on this machine has made a tokenizer",
            code="tokenizer_missing",
            hint="name the folder of one with --tokenizer",
        )
    if args.what in BY_NAME and BY_NAME[args.what].kind != "file":
        source = found.task_source(args.tasks) or TaskSource()
        chats = chosen.of_task(args.what, args.split, source, args.row, args.count)
    elif Path(args.what).is_file():
        chats = chosen.of_file(Path(args.what), args.row, args.count)
    else:
        tasks = ", ".join(task.name for task in TASKS if task.kind != "file")
        raise StageError(f"{args.what!r} is neither a file nor a task", code="bad_task", hint=f"the tasks are {tasks}")
    for place, conversation in chats:
        one = rendered(conversation, made_with[0], args.context, source=args.what, place=place)
        sys.stdout.write(one.model_dump_json() + "\n")
    return Exit.OK


def _identity(args: argparse.Namespace) -> int:
    try:
        facts = persona.read_facts(args.facts.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StageError(f"no file {args.facts}", code="bad_facts", hint="write one fact on each line of it") from None
    except UnicodeDecodeError as err:
        raise StageError(f"{args.facts} is not UTF-8: {err.reason}", code="bad_facts", hint="save it as UTF-8") from None
    out = args.out or Path(f"{args.name.casefold().replace(' ', '_').replace('/', '_')}.jsonl")
    if out.is_dir():
        raise StageError(f"{out} is a folder", code="bad_facts", hint="give --out the name of a file")
    files = {False: out, True: out.with_suffix(f".held_out{out.suffix}")}
    existing = [path for path in files.values() if path.exists()]
    if existing and not args.force:
        raise StageError(
            f"{existing[0]} is there already", code="bad_facts", hint="use another --out, or --force to replace it"
        )
    made = persona.Persona(args.name, facts)
    rows = {False: args.rows, True: max(1, args.rows // TEST_SHARE)}
    chats = {test: made.conversations(rows[test], args.seed, test=test) for test in files}
    for test, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats[test]))
    sys.stdout.write("".join(f"{line}\n" for line in _written(files, chats, args.rows)))
    return Exit.OK


def _written(files: dict[bool, Path], chats: dict[bool, list[Conversation]], asked_for: int) -> Iterator[str]:
    for test, path in files.items():
        kind = "whose questions are in no other file, to validate on" if test else "to train on"
        yield f"{path}: {len(chats[test]):,} conversations {kind}, {persona.first_questions(chats[test]):,} first questions"
    if len(chats[False]) < asked_for:
        yield f"The facts give no more than {len(chats[False]):,} different conversations; add facts for more."
    train, val = (json.dumps({"jsonl": str(files[test].resolve())}) for test in (False, True))
    yield f"In a recipe: add {train} to sft.train (and mid.train), and {val} to sft.val."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nanochat", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    looks = argparse.ArgumentParser(add_help=False)
    looks.add_argument("--tokenizer", type=Path, help="folder of a tokenizer (default: that of the newest run here)")
    looks.add_argument("--tasks", type=Path, help="folder of task data (default: those of the newest run here)")
    looks.add_argument(
        "--context", type=_up_to(2**20, "a number of tokens"), default=ModelSpec().seq_len, help="tokens of a row that are kept"
    )
    looks.add_argument("--json", action="store_true")
    one = commands.add_parser("check", prog="nanochat data check", parents=[looks])
    one.add_argument("file", type=Path)
    one.add_argument("--core", type=Path, help="folder of a CORE bundle (default: core/ in --tasks, or that of the newest run)")
    one.set_defaults(run=_check)
    some = commands.add_parser("inspect", parents=[looks])
    some.add_argument("what")
    some.add_argument("--row", type=_up_to(10**9, "a row"), default=1)
    some.add_argument("--count", type=_up_to(10**9, "a number of rows"), default=1)
    some.add_argument("--split")
    some.set_defaults(run=_inspect)
    who = commands.add_parser("identity")
    who.add_argument("--name", type=_name, required=True)
    who.add_argument("--facts", type=Path, required=True)
    who.add_argument("--out", type=Path)
    who.add_argument("--rows", type=_up_to(100_000, "a number of conversations"), default=1000)
    who.add_argument("--seed", type=int, default=42)
    who.add_argument("--force", action="store_true")
    who.set_defaults(run=_identity)
    return parser


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 0 < len(name) <= 60 or "{" in name:
        raise argparse.ArgumentTypeError("a name has 1 to 60 characters and no braces")
    return name


def _up_to(most: int, noun: str) -> Callable[[str], int]:
    """The parser of an argument from 1 to `most`."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not 0 < int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {noun} from 1 to {most:,}")
        return int(text)

    return parse


if __name__ == "__main__":
    raise SystemExit(main())

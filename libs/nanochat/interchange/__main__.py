"""`python -m nanochat.interchange export --model DIR --tokenizer DIR --to hf OUT`, `… import DIR OUT` and `… crosscheck … OUT`.

The commands `nanochat export` and `nanochat import` start it. `crosscheck` lets lm-eval judge an exported model beside our own scorer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nanochat.contract.contract import Exit, StageError
from nanochat.interchange.folder import Refused, check_target

FORMATS = ("hf", "safetensors", "gguf")
DTYPES = ("float32", "bfloat16")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        read = [vars(args)[name] for name in ("model", "tokenizer", "folder", "core") if name in args]
        check_target(args.out, *read, force=args.force)  # before torch is imported, which takes seconds
        told, code = COMMANDS[args.command](args)
        sys.stdout.write(told)
    except (Refused, StageError) as err:
        hint = f"; {err.hint}" if isinstance(err, StageError) and err.hint else ""
        sys.stderr.write(f"nanochat: {err}{hint}\n")
        return Exit.BAD_INPUT
    except OSError as err:  # a folder that may not be read, a disk that fails
        sys.stderr.write(f"nanochat: {err}\n")
        return Exit.FAILED
    return code


def _export(args: argparse.Namespace) -> tuple[str, int]:
    import torch

    from nanochat.interchange import hf, leaving

    if args.to == "gguf":
        raise Refused(leaving.GGUF)
    source = leaving.Source.open(args.model, args.tokenizer)
    dtype = getattr(torch, args.dtype) if args.dtype else None
    shard_bytes = int(args.shard_gb * 10**9)
    if args.to == "safetensors":
        leaving.to_safetensors(source, args.out, dtype=dtype, shard_bytes=shard_bytes, force=args.force)
        return (
            f"{args.out} holds the weights, nanochat.json and the tokenizer.\nRead it back: nanochat import {args.out} FOLDER\n",
            Exit.OK,
        )
    leaving.to_hf(source, args.out, dtype=dtype, shard_bytes=shard_bytes, remote_code=not args.no_remote_code, force=args.force)
    beyond = hf.beyond_native(source.config)
    trust = ", trust_remote_code=True" if beyond else ""
    why = f"The code of the model is in the folder, because it has {', '.join(beyond)}.\n" if beyond else ""
    return f'{why}Load it: transformers.AutoModelForCausalLM.from_pretrained("{args.out}"{trust})\n', Exit.OK


def _import(args: argparse.Namespace) -> tuple[str, int]:
    from nanochat.interchange import arriving

    arriving.write(arriving.Arrival.open(args.folder), args.out, force=args.force)
    return f"Serve it: python -m services.inference --model {args.out}/model --tokenizer {args.out}/tokenizer\n", Exit.OK


def _crosscheck(args: argparse.Namespace) -> tuple[str, int]:
    import torch

    from nanochat.data.core_bundle import bundle_in, read_tasks
    from nanochat.interchange import core_tasks, crosscheck, hf, leaving
    from nanochat.train.checkpoint import load_model

    crosscheck.check_installed(args.lm_eval)
    root = bundle_in(args.core) if args.core.is_dir() else None
    if root is None:
        raise Refused(f"{args.core} has no CORE bundle: give the folder with core.yaml")
    tasks = {task.label: task for task in read_tasks(root) if task.file.is_file()}
    if unknown := [label for label in args.tasks or () if label not in tasks]:
        raise Refused(f"the bundle has no {', '.join(unknown)}; it has {', '.join(tasks)}")
    source, dtype = leaving.Source.open(args.model, args.tokenizer), getattr(torch, args.dtype)
    model = load_model(args.model, "cuda" if torch.cuda.is_available() else "cpu")[0].eval()
    limit = model.rotary.length
    exported, folder = args.out / "exported", args.out / "tasks"
    leaving.to_hf(source, exported, dtype=dtype, shard_bytes=hf.SHARD_BYTES, remote_code=True, force=args.force)
    chosen = [tasks[label] for label in args.tasks or tasks]
    shared = core_tasks.write(chosen, source.tokenizer, folder, count=args.items or None, limit=limit)
    judged = crosscheck.run(args.lm_eval, exported, folder, shared, args.out / "lm-eval", dtype=dtype, limit=limit)
    found = crosscheck.compare(model, shared, judged, dtype=dtype)
    agree = all(one.holds(crosscheck.TOLERANCE[dtype]) for one in found)
    verdict = "Both agree" if agree else "They do NOT agree"
    told = f"{crosscheck.told(found)}{verdict} within {crosscheck.TOLERANCE[dtype]:g} nats a token, in {args.dtype}.\n"
    return told, Exit.OK if agree else Exit.FAILED


COMMANDS = {"export": _export, "import": _import, "crosscheck": _crosscheck}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nanochat.interchange", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    leave = commands.add_parser("export")
    leave.add_argument("--to", choices=FORMATS, required=True)
    leave.add_argument("--model", type=Path, required=True, help="directory of a sealed checkpoint")
    leave.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer of the same run")
    leave.add_argument("--dtype", choices=DTYPES, help="dtype of the matrices; default: that of the checkpoint")
    leave.add_argument("--shard-gb", type=_positive, default=5.0, help="largest file of weights, in 10^9 bytes (default 5)")
    leave.add_argument("--no-remote-code", action="store_true", help="refuse a model that would need code in the folder")
    arrive = commands.add_parser("import")
    arrive.add_argument("folder", type=Path)
    check = commands.add_parser("crosscheck")
    check.add_argument("--model", type=Path, required=True, help="directory of a sealed checkpoint")
    check.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer of the same run")
    check.add_argument("--core", type=Path, required=True, help="folder of a CORE bundle")
    check.add_argument("--tasks", nargs="+", metavar="LABEL", help="of CORE; default: all whose file is there")
    check.add_argument("--items", type=int, default=100, help="of each task; 0: all (default 100)")
    check.add_argument("--dtype", choices=DTYPES, default="float32")
    check.add_argument(
        "--lm-eval", default=sys.executable, metavar="PYTHON", help="the Python of the environment that has lm-eval"
    )
    for command in (leave, arrive, check):
        command.add_argument("out", type=Path)
        command.add_argument("--force", action="store_true", help="replace a folder that is not empty")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a size above 0")
    return value


if __name__ == "__main__":
    raise SystemExit(main())

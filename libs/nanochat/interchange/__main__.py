"""`python -m nanochat.interchange export --model DIR --tokenizer DIR --to hf OUT`, and `… import DIR OUT`.

The commands `nanochat export` and `nanochat import` start it.
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
        check_target(args.out, force=args.force)  # before torch is imported, which takes seconds
        sys.stdout.write((_export if args.command == "export" else _import)(args))
    except (Refused, StageError) as err:
        hint = f". {err.hint}" if isinstance(err, StageError) and err.hint else ""
        sys.stderr.write(f"nanochat: {err}{hint}\n")
        return Exit.BAD_INPUT
    except OSError as err:  # a folder that may not be read, a disk that fails
        sys.stderr.write(f"nanochat: {err}\n")
        return Exit.FAILED
    return Exit.OK


def _export(args: argparse.Namespace) -> str:
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
            f"{args.out} holds the weights, nanochat.json and the tokenizer.\nRead it back: nanochat import {args.out} FOLDER\n"
        )
    leaving.to_hf(source, args.out, dtype=dtype, shard_bytes=shard_bytes, remote_code=not args.no_remote_code, force=args.force)
    beyond = hf.beyond_native(source.config)
    trust = ", trust_remote_code=True" if beyond else ""
    why = f"The code of the model is in the folder, because it has {', '.join(beyond)}.\n" if beyond else ""
    return f'{why}Load it: transformers.AutoModelForCausalLM.from_pretrained("{args.out}"{trust})\n'


def _import(args: argparse.Namespace) -> str:
    from nanochat.interchange import arriving

    arriving.write(arriving.Arrival.open(args.folder), args.out, force=args.force)
    return f"Serve it: python -m services.inference --model {args.out}/model --tokenizer {args.out}/tokenizer\n"


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
    for command in (leave, arrive):
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

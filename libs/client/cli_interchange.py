"""The commands that take a model to other programs and back: export, import. A process of its own does the work."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import connect
from client.cli_models import find
from client.errors import ClientError
from client.processes import given, start

ForceOption = Annotated[bool, typer.Option("--force", help="replace a folder that is not empty")]


class Format(StrEnum):
    HF = "hf"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.MODELS, export, import_)


def export(
    out: Annotated[Path, typer.Argument(metavar="FOLDER", help="the folder to write")],
    to: Annotated[
        Format, typer.Option(help="hf: for transformers; safetensors: plain weights; gguf is refused with the reason")
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL|DIR",
            help="id of a model (see `nanochat models`), name of its run, or a checkpoint's directory",
            autocompletion=complete.models,
        ),
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="tokenizer of the same run, if --model is a directory")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="dtype of the matrices; default: that of the checkpoint")] = None,
    shard_gb: Annotated[float | None, typer.Option(min=0.001, help="largest file of weights, in 10^9 bytes; default 5")] = None,
    no_remote_code: Annotated[
        bool, typer.Option("--no-remote-code", help="refuse a model that would need its code in the folder")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Write a model as a folder for other programs."""
    checkpoint, made_with = (model, str(tokenizer)) if tokenizer else _promoted(model)
    options: dict[str, str | float | bool | None] = {
        "--to": to,
        "--model": checkpoint,
        "--tokenizer": made_with,
        "--dtype": dtype,
        "--shard-gb": shard_gb,
        "--no-remote-code": no_remote_code,
        "--force": force,
    }
    start("nanochat.interchange", "export", *given(options), "--", str(out))


def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="a folder that export or save_pretrained wrote")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="gets the checkpoint in model/ and its tokenizer in tokenizer/")],
    force: ForceOption = False,
) -> None:
    """Make a checkpoint that the inference service serves from a folder of NanoChatForCausalLM or of `nanochat export`."""
    start("nanochat.interchange", "import", *given({"--force": force}), "--", str(folder), str(out))


def _promoted(wanted: str) -> tuple[str, str]:
    """The directories of a promoted model and its tokenizer. Raises typer.BadParameter or ClientError."""
    if Path(wanted).exists():
        raise typer.BadParameter(
            "a checkpoint's directory needs --tokenizer DIR, the tokenizer of the same run", param_hint="--model"
        )
    with connect() as client:
        found = find(client.models(), wanted)
    if not Path(found.model.path).is_dir():
        raise ClientError(f"{found.model.path} is not on this machine: run the export where the checkpoints are")
    return found.model.path, found.tokenizer.path

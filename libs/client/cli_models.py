"""The commands for trained models: models, chat."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import connect
from client.errors import ApiError, ClientError
from client.inference import Inference, Message
from client.settings import Settings, discover
from client.text import console

out = console()


def register(app: typer.Typer) -> None:
    for command in (models, chat):
        app.command(command.__name__)(command)


def models() -> None:
    """List the models you can chat with, newest first."""
    with connect() as client:
        items = client.models()
    if not items:
        typer.echo("No models yet. Train one: nanochat submit tiny --watch")
        return
    table = Table("id", "run", "stage", "step", "created", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for model in items:
        created = model.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(model.id, f"{model.run_id} {model.run_name}", model.stage, str(model.step), created)
    out.print(table)


def chat(
    prompt: Annotated[str | None, typer.Argument(help="one question; leave it out for a conversation")] = None,
    model: Annotated[
        str | None, typer.Option(help="id of a model (see `nanochat models`); without it the server chooses")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 always takes the likeliest token")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer, in tokens")] = None,
) -> None:
    """Chat with a trained model. The answer appears while it is generated."""
    settings = discover()
    sampling = {k: v for k, v in {"temperature": temperature, "max_tokens": max_tokens}.items() if v is not None}
    with Inference(settings.inference_url, settings.api_key) as inference, _key_is_told(settings):
        if prompt is not None:
            if not _is_text(prompt):
                raise ClientError("the prompt is not valid UTF-8")
            _answer(inference, [{"role": "user", "content": prompt}], model, sampling)
            return
        messages: list[Message] = []
        for question in _questions():
            messages.append({"role": "user", "content": question})
            try:
                answer = _answer(inference, messages, model, sampling)
            except KeyboardInterrupt:  # stop this answer, forget its question, continue the conversation
                sys.stdout.write("\n")
                messages.pop()
                continue
            messages.append({"role": "assistant", "content": answer})


@contextmanager
def _key_is_told(settings: Settings) -> Iterator[None]:
    """A service on loopback may need no key. If it does, and there is none, say where keys are looked for."""
    try:
        yield
    except ApiError as err:
        if err.status == 401:
            settings.require_key()
        raise


def _is_text(argument: str) -> bool:
    """False for an argument with bytes that are not UTF-8: Python keeps them as halves of surrogate pairs."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _answer(inference: Inference, messages: list[Message], model: str | None, sampling: dict[str, float | int]) -> str:
    pieces: list[str] = []
    for piece in inference.chat(messages, model, stream=True, **sampling):
        pieces.append(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return "".join(pieces)


def _questions() -> Iterator[str]:
    """The lines of piped input, or the lines typed at a prompt until Ctrl-D or an empty line."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    while True:
        try:
            line = input("you> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line

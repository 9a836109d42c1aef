"""The command `chat`: one question, piped questions, or a conversation at a prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Code, emit, out, settings, waits
from client.conversation import Conversation
from client.errors import ApiError, ClientError
from client.inference import Inference
from client.printable import visible
from client.repl import Repl
from client.settings import Settings


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.MODELS, chat)


def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(help="one question; - reads all of stdin as one; left out, each line is a turn of a conversation"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="id of a model (see `nanochat models`) or name of its run; without it the server chooses",
            autocompletion=complete.models,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="what the model reads before the conversation")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 always takes the likeliest token")] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="draw from so many of the likeliest tokens")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="the same seed draws the same answer")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer, in tokens")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print each answer as JSON: text, model, tokens, seconds")] = False,
) -> None:
    """Chat with a trained model. The answer appears while it is generated. At the prompt, /help lists the commands."""
    found = settings()
    given = {"temperature": temperature, "top_k": top_k, "seed": seed, "max_tokens": max_tokens}
    sampling = {name: value for name, value in given.items() if value is not None}
    if prompt == "-":
        prompt = sys.stdin.read()
    for text in (prompt, system):
        if text is not None and not _is_text(text):
            raise ClientError("the prompt is not valid UTF-8")
    with Inference(found.require_inference(), found.api_key, waits=waits) as inference, _key_is_told(found):
        talk = Conversation(inference, model, system, sampling)
        if model is not None:
            talk.choose(model)  # an unknown one is refused by the server, with the names that there are
        if prompt is None and sys.stdin.isatty() and not as_json:
            Repl(talk, out).run()
            return
        for question in [prompt] if prompt is not None else _lines():
            _answer(talk, question, as_json)


def _answer(talk: Conversation, question: str, as_json: bool) -> None:
    if as_json:
        for _ in talk.ask(question):
            pass
        emit(talk.last)
        return
    try:
        for piece in talk.ask(question):
            sys.stdout.write(visible(piece.text) if out.is_terminal else piece.text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        raise typer.Exit(Code.INTERRUPTED) from None
    sys.stdout.write("\n")


def _lines() -> Iterator[str]:
    yield from (line.strip() for line in sys.stdin if line.strip())


@contextmanager
def _key_is_told(found: Settings) -> Iterator[None]:
    """A service on loopback may need no key. If it does, and there is none, say where keys are looked for."""
    try:
        yield
    except ApiError as err:
        if err.status == 401:
            found.require_key()
        raise


def _is_text(argument: str) -> bool:
    """False for an argument with bytes that are not UTF-8: Python keeps them as halves of surrogate pairs."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True

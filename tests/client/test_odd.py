"""Servers that are something else, and values that no request can hold: each method of the client raises a ClientError that says so."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client.cli_base import one_of
from client.client import Client
from client.conversation import Conversation
from client.errors import ClientError, NoKey, Unreachable, Unsendable, from_response
from client.inference import Inference, Message
from client.looks import Looks
from client.overrides import parse
from client.sweeps import Sweeps
from client.transport import Transport
from client.watch import watch
from client.webhooks import Webhooks
from tests.client.scripted import scripted

IDS = ("run_id", "checkpoint_id", "key_id", "worker_id", "webhook_id", "delivery_id", "sweep", "name")
ASIDE = "not the answer of a nanochat server|is the port right"  # of what is JSON, and of what is not
USED = {"prompt_tokens": 1, "completion_tokens": 1}
VALUES = {"recipe": "tiny", "steps": 1, "folder": Path("/nowhere"), "body": {}, "at": None, "dry_run": True, "url": "https://x"}
ROOMS: dict[type, Callable[[Client], Any]] = {
    Client: lambda client: client,
    Sweeps: lambda client: client.sweeps,
    Webhooks: lambda client: client.webhooks,
}


def methods() -> Iterator[tuple[type, str]]:
    """The methods that ask the server once and read JSON."""
    for kind in ROOMS:
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            answer = inspect.signature(method).return_annotation
            if not name.startswith(("_", "follow_")) and answer not in ("None", "str", "bool", "Path"):
                yield kind, name


def call(client: Client, kind: type, name: str, wanted: str = "x") -> Any:
    """Call the method with what it needs."""
    method = getattr(ROOMS[kind](client), name)
    needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    given = {p.name: VALUES.get(p.name, wanted) for p in needed}
    by_place = [given.pop(p.name) for p in needed if p.kind is p.POSITIONAL_OR_KEYWORD]
    return method(*by_place, **given)


@pytest.mark.parametrize("answer", [{}, [], None, {"items": [{}], "series": [{}], "devices": [{}], "report": 0}, {"items": 3}])
def test_an_answer_of_another_program_is_no_traceback(answer: Any) -> None:
    refused = 0
    with scripted(answer) as server, Client(server.url, "k") as client:
        for kind, name in methods():
            try:
                call(client, kind, name)
            except ClientError:
                refused += 1
        with pytest.raises(ClientError), Inference(server.url) as inference:
            inference.served()
    assert refused > 40  # a catalog may be empty, and a report as data anything


ASKED: list[Message] = [{"role": "user", "content": "Who are you?"}]


@pytest.mark.parametrize(
    "answer",
    [
        *({}, [], None, "<html>", {"choices": []}, {"choices": [{}]}, {"choices": [{"message": 3}]}),
        {"choices": [{"message": {"content": 3}}]},
    ],
)
def test_an_answer_that_is_none_is_no_traceback(answer: Any) -> None:
    with scripted(answer) as server, Inference(server.url) as inference, pytest.raises(ClientError, match=ASIDE):
        inference.chat(ASKED)


@pytest.mark.parametrize(
    "chunk", ["<html>", "[]", "3", "{}", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{"delta": {"content": 3}}]}']
)
def test_a_stream_that_is_none_is_no_traceback(chunk: str) -> None:
    with scripted(f"data: {chunk}\n\n") as server, Inference(server.url) as inference:
        with pytest.raises(ClientError, match="not the answer of a nanochat server"):  # it is not even a stream
            list(inference.chat(ASKED, stream=True))
        server.content_type = "text/event-stream"
        with pytest.raises(ClientError, match="not the answer of a nanochat server"):
            list(inference.chat(ASKED, stream=True))


def test_an_answer_says_which_model_gave_it() -> None:
    parts = ({"choices": [{"delta": {"content": "Hi"}}], "model": "c_1"}, {"choices": [], "usage": USED, "model": "c_1"})
    told = "".join(f"data: {json.dumps(part)}\n\n" for part in parts)
    with scripted(f"{told}data: [DONE]\n\n") as server, Inference(server.url) as inference:
        server.content_type = "text/event-stream"
        talk = Conversation(inference)
        assert [piece.text for piece in talk.ask("Who are you?")] == ["Hi", ""]
        assert (talk.last.model, talk.last.text) == ("c_1", "Hi")


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one() -> None:
    half = 'data: {"choices": [{"delta": {"content": "I am"}}]}\n\n'
    with scripted(half) as server, Inference(server.url) as inference:
        server.content_type = "text/event-stream"
        pieces = inference.chat(ASKED, stream=True)
        assert next(pieces) == "I am"
        with pytest.raises(Unreachable, match="the answer broke off"):
            next(pieces)


@pytest.mark.parametrize("wanted", ["", ".", "..", "a/b", "\udcff"])
def test_a_name_never_becomes_another_address(wanted: str) -> None:
    with scripted({}) as server, Client(server.url, "k") as client:
        for kind in ROOMS:
            for name, method in inspect.getmembers(kind, inspect.isfunction):
                first = list(inspect.signature(method).parameters.values())[1:2]
                if name[0] == "_" or not first or first[0].name not in IDS or name in ("make", "make_key", "follow_logs"):
                    continue
                with pytest.raises(Unsendable, match="give the id"):
                    call(client, kind, name, wanted)
        assert server.asked == 0


@pytest.mark.parametrize("given", [{"max_usd": float("nan")}, {"max_hours": float("inf")}, {"idempotency_key": "é"}])
def test_a_value_that_cannot_be_sent_is_refused(given: Any) -> None:
    with scripted({}) as server, Client(server.url, "k") as client:
        with pytest.raises(Unsendable):
            client.submit("tiny", **given)
        assert server.asked == 0


@pytest.mark.parametrize("question", [{"content": "\udcff"}, {"content": "Hi", "temperature": float("nan")}])
def test_a_question_that_cannot_be_sent_is_refused(question: Any) -> None:
    with scripted({}) as server, Inference(server.url) as inference:
        with pytest.raises(Unsendable, match=r"not valid UTF-8|JSON"):
            list(inference.pieces([{"role": "user", "content": question.pop("content")}], **question))
        assert server.asked == 0


@pytest.mark.parametrize("url", ["localhost:8000", "http://[::1", "http://x:y", "", "ftp://x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="is not the address of a server"):
        Transport(url)


@pytest.mark.parametrize("key", ["se cret\n", "sec\0ret", "sécret"])
def test_a_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(NoKey) as refused:
        Transport("http://127.0.0.1:1", key)
    assert key not in str(refused.value)
    assert "cret" not in str(refused.value)


def test_a_problem_of_another_form_is_still_a_problem() -> None:
    body = {"errors": 7, "detail": {"a": 1}, "error": 5}
    assert "(500)" in str(from_response(httpx.Response(500, json=body)))


def test_an_answer_that_cannot_be_decoded_is_no_traceback() -> None:
    def garbled(request: httpx.Request) -> httpx.Response:
        raise httpx.DecodingError("incorrect header check", request=request)

    transport = Transport("http://127.0.0.1:1")
    transport._http = httpx.Client(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(garbled))
    with pytest.raises(ClientError, match="is the port right"):
        transport.get("/")


@pytest.mark.parametrize("ask", [Client.report, Client.report_page])
def test_a_page_of_another_program_is_no_report(ask: Callable[[Client, str], str]) -> None:
    refused = pytest.raises(ClientError, match="not the answer of a nanochat server")
    with scripted("<h1>Sign in</h1>") as server, Client(server.url, "k") as client, refused:
        ask(client, "r")


def test_what_is_nested_too_deeply_is_no_traceback() -> None:
    deep = "[" * 100_000
    with scripted(deep) as server, Client(server.url, "k") as client:
        with pytest.raises(ClientError, match="is the port right"):
            client.run("r")
        with pytest.raises(ClientError, match="is the port right"):
            watch(client, "r")
    assert "(500)" in str(from_response(httpx.Response(500, text=deep)))
    assert parse([f"field={deep}"]) == {"field": deep}


def test_a_watch_ends_with_whatever_goes_wrong() -> None:
    with pytest.raises(ZeroDivisionError):
        list(Looks("http://127.0.0.1:1", lambda: 1 / 0, every_s=0.01))


@pytest.mark.parametrize("message", ["3", "{}", "<html>"])
def test_a_message_of_another_program_is_no_traceback(message: str) -> None:
    with scripted(f"data: {message}\n\n") as server, Client(server.url, "k") as client:
        server.content_type = "text/event-stream"
        with pytest.raises(ClientError, match="not the answer of a nanochat server"):
            list(client.follow_logs("r"))


@pytest.mark.parametrize("answer", [[3], {"items": 3}, {"items": [{}]}, {"items": [{"path": 3}]}])
def test_files_of_another_program_are_not_downloaded(answer: Any, tmp_path: Path) -> None:
    refused = pytest.raises(ClientError, match="not the answer of a nanochat server")
    with scripted(answer) as server, Client(server.url, "k") as client, refused:
        client.download("c_0123456789abcdef", tmp_path)


def test_an_answer_from_elsewhere_names_the_address() -> None:
    def elsewhere(request: httpx.Request) -> httpx.Response:
        return httpx.Response(301, headers={"Location": "https://lab/v1"}, html="<h1>Moved</h1>")

    transport = Transport("http://lab")
    transport._http = httpx.Client(base_url="http://lab", transport=httpx.MockTransport(elsewhere))
    for ask in (transport.get, lambda path: transport.text(path, "text/html"), lambda path: streamed(transport, path)):
        with pytest.raises(ClientError, match=r"http://lab/v1/runs sends to https://lab/v1; name the server's own address"):
            ask("/v1/runs")


def streamed(transport: Transport, path: str) -> None:
    with transport.stream("GET", path, read_timeout_s=1):
        pass


def test_what_nothing_is_called_is_named() -> None:
    with pytest.raises(ClientError, match="no key has the id or the name 'nope'"):
        one_of([], "nope", "key")
    assert one_of([], "k_0123456789abcdef", "key") == "k_0123456789abcdef"


def test_a_full_disk_is_one_line() -> None:
    command = [sys.executable, "-c", "from client.cli import main; main(['context', 'list', '--json'])"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "nanochat: No space left on device\n")

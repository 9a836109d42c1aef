"""A client of the chat endpoint, which follows OpenAI's API. The official `openai` client works as well."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, overload

import httpx
from pydantic import BaseModel, Field

from client import sse
from client.answers import foreign, items, read
from client.errors import ApiError, Unreachable
from client.transport import PROBE_TIMEOUT_S, Transport

REPLY_SILENCE_S = 120.0  # a model that has yet to be loaded, on a slow CPU
LOADING = httpx.Timeout(REPLY_SILENCE_S, connect=5.0)


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


class ServedModel(BaseModel):
    """A model of GET /v1/models. Which fields it has beside its id depends on where the model comes from."""

    id: str
    run_id: str | None = None
    run_name: str | None = None
    stage: str | None = None
    step: int | None = None
    loaded: bool = False
    default: bool = False
    max_model_len: int | None = None


class Calculation(BaseModel):
    """One use of the calculator by the model. `output` is empty if there was no result."""

    code: str
    output: str = ""


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class Tokenized(BaseModel):
    """How long a prompt is, and how much the model can read and write together."""

    count: int
    max_model_len: int
    tokens: list[int]


class _Said(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Said


class _Completion(BaseModel):
    """An answer that is not streamed."""

    choices: list[_Choice] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer with its log probability, and the likeliest tokens at its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a streamed answer: new text, calculations, the reason why it ended, or (last) the token counts and who answered.

    `logprobs` are those of the new tokens, if the request asked for them.
    """

    text: str = ""
    calculations: tuple[Calculation, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None


class Inference:
    """`Inference(url, key).chat([{"role": "user", "content": "Hi"}])`."""

    def __init__(self, base_url: str, api_key: str | None = None, *, waits: Callable[[str], None] | None = None):
        """`waits`: see `Transport`."""
        self._http = Transport(base_url, api_key, waits=waits)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Inference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def models(self) -> list[str]:
        """Ids of the available models, newest first."""
        return [m.id for m in self.served()]

    def served(self) -> list[ServedModel]:
        """The available models, newest first."""
        return items(self._http.get("/v1/models"), ServedModel, "data")

    def is_alive(self) -> bool:
        """Whether the service answers, be it without a model."""
        try:
            self._http.request("GET", "/health", repeatable=False, timeout=PROBE_TIMEOUT_S)
        except (ApiError, Unreachable):
            return False
        return True

    @overload
    def chat(
        self, messages: Sequence[Message], model: str | None = None, stream: Literal[False] = False, **sampling: Any
    ) -> str: ...
    @overload
    def chat(
        self, messages: Sequence[Message], model: str | None = None, *, stream: Literal[True], **sampling: Any
    ) -> Iterator[str]: ...
    def chat(
        self, messages: Sequence[Message], model: str | None = None, stream: bool = False, **sampling: Any
    ) -> str | Iterator[str]:
        """The answer: the whole text or, with `stream`, its pieces as they are generated. `model=None` leaves the
        choice to the server, whose default is a model that it has loaded.

        `sampling` is sent unchanged: temperature, top_p, max_tokens, seed, … Closing the iterator stops the generation.
        Raises ClientError.
        """
        if stream:
            return _texts(self.pieces(messages, model, **sampling))
        body = {**_named(model), "messages": list(messages), "stream": False, **sampling}
        answer = self._http.request("POST", "/v1/chat/completions", json=body, timeout=LOADING, repeatable=False)
        return read(_Completion, answer).choices[0].message.content or ""

    def pieces(self, messages: Sequence[Message], model: str | None = None, **sampling: Any) -> Generator[Piece]:
        """Like `chat` with `stream`, with calculations, finish reasons and token counts in addition to the text."""
        return self._stream("/v1/chat/completions", {**_named(model), "messages": list(messages), **sampling})

    def continued(self, prompt: str, model: str | None = None, **sampling: Any) -> Generator[Piece]:
        """The continuation of a text, as of a model that was not trained on conversations; else like `pieces`."""
        return self._stream("/v1/completions", {**_named(model), "prompt": prompt, **sampling})

    def tokenized(self, prompt: str | Sequence[Message], model: str | None = None) -> Tokenized:
        """The tokens of a text or of a conversation as the model reads them, up to where an answer would begin. Raises ClientError."""
        body: dict[str, Any] = {**_named(model)}
        if isinstance(prompt, str):
            body["prompt"] = prompt
        else:
            body |= {"messages": list(prompt), "add_generation_prompt": prompt[-1]["role"] != "assistant"}
        answer = self._http.request("POST", "/tokenize", json=body, timeout=LOADING, repeatable=True)
        return read(Tokenized, answer)

    def _stream(self, path: str, body: dict[str, Any]) -> Generator[Piece]:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        try:
            with self._http.stream("POST", path, read_timeout_s=REPLY_SILENCE_S, json={**body, **options}) as response:
                for message in sse.events(response):
                    if message.data == "[DONE]":
                        return
                    yield from _read(message.data)
            raise Unreachable(self._http.base_url, ConnectionError("the answer broke off"))
        except sse.NotAStream as err:
            raise foreign(str(err)) from err
        except httpx.TransportError as err:
            raise Unreachable(self._http.base_url, err) from err


def _named(model: str | None) -> dict[str, str]:
    return {"model": model} if model else {}


def _read(data: str) -> list[Piece]:
    """The pieces of one event. Raises ApiError if it reports that the generation failed, and ClientError as `answers.read` does."""
    try:
        return list(_pieces(json.loads(data)))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        raise foreign(f"{type(err).__name__}: {err}") from err


def _texts(pieces: Generator[Piece]) -> Iterator[str]:
    with closing(pieces):
        for piece in pieces:
            if piece.text:
                yield piece.text


def _pieces(chunk: dict[str, Any]) -> Iterator[Piece]:
    if "error" in chunk:
        raise ApiError(500, "The answer broke off", str(chunk["error"].get("message", "")))
    for choice in chunk["choices"]:
        delta = choice.get("delta") or {"content": choice.get("text"), "calculator": choice.get("calculator")}
        done = tuple(Calculation.model_validate(c) for c in delta.get("calculator") or ())
        text = delta.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("the content is not text")
        yield Piece(text, done, _logprobs(choice.get("logprobs") or {}), choice.get("finish_reason"))
    if chunk.get("usage"):
        yield Piece(usage=Usage.model_validate(chunk["usage"]), model=str(chunk["model"]) if chunk.get("model") else None)


def _logprobs(found: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """Those of either route: a list of tokens for chat, parallel lists for texts."""
    if "content" in found:
        return tuple(
            TokenLogprob(one["token"], one["logprob"], tuple((t["token"], t["logprob"]) for t in one["top_logprobs"]))
            for one in found["content"] or ()
        )
    parts = zip(found.get("tokens", ()), found.get("token_logprobs", ()), found.get("top_logprobs", ()), strict=True)
    return tuple(TokenLogprob(token, p, tuple((top or {}).items())) for token, p, top in parts if p is not None)

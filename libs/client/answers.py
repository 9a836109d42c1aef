"""What a request to the control API is made of, and its answers as types: whatever does not fit is a ClientError that says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from client.errors import ClientError, Unsendable

M = TypeVar("M", bound=BaseModel)
ASK = (
    "is the address right (NANOCHAT_API_URL and NANOCHAT_INFERENCE_URL, or `nanochat context list`),"
    " and are client and server of one version?"
)


def part(text: str) -> str:
    """An id or a name as one part of a path. Raises Unsendable for a text that would make another address of it."""
    try:
        if text in ("", ".", "..") or "/" in text:
            raise ValueError
        return quote(text, safe="")
    except ValueError:  # of quote: the text holds bytes that are not UTF-8
        raise Unsendable(f"{text!r} cannot be asked for by name; give the id") from None


def foreign(why: str) -> ClientError:
    """The error for an answer of another program, or of a server of another version."""
    return ClientError(f"this is not the answer of a nanochat server ({why}); {ASK}")


def read(kind: type[M], answer: Any) -> M:
    """The answer as this type. Raises ClientError if another program has answered, or a server of another version."""
    return _told(kind, kind.model_validate, answer)


def read_json(kind: type[M], text: str) -> M:
    """As `read`, from JSON: a message of a stream."""
    return _told(kind, kind.model_validate_json, text)


def _told(kind: type[M], validate: Callable[[Any], M], answer: Any) -> M:
    try:
        return validate(answer)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(step) for step in (kind.__name__, *first["loc"]))
        raise foreign(f"{where}: {first['msg']}") from err


def items(answer: Any, kind: type[M], name: str = "items") -> list[M]:
    """The answer's list of this name. Raises ClientError as `read` does."""
    found = value(answer, name)
    if not isinstance(found, list):
        raise foreign(f"{name!r} is not a list")
    return [read(kind, one) for one in found]


def value(answer: Any, name: str) -> Any:
    """The answer's field of this name. Raises ClientError as `read` does."""
    if not isinstance(answer, dict) or name not in answer:
        raise foreign(f"it has no {name!r}")
    return answer[name]

"""The errors that this library raises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that the server refused, with the reason and what to do."""

    field: str
    message: str


class ClientError(Exception):
    """Base class of all errors of this library. Their messages are written for people."""


class Unsendable(ClientError):
    """A value that no request can hold, such as NaN; nothing was sent."""


class NoKey(ClientError):
    """There is no API key where one is needed, or what is there can be none."""


class Unreachable(ClientError):
    """The server did not answer: it is not running, or the address is wrong."""

    def __init__(self, url: str, cause: Exception):
        super().__init__(
            f"no answer from {url} ({_reason(cause)}); start the platform with `nanochat up`, or name a server that runs"
            " elsewhere: `nanochat context add`, or NANOCHAT_API_URL and NANOCHAT_INFERENCE_URL"
        )
        self.url = url


class ApiError(ClientError):
    """The server refused the request or failed, and answered with a problem (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str = "", errors: Sequence[FieldError] = (), type: str = "about:blank"):
        self.status, self.title, self.detail, self.errors, self.type = status, title, detail, list(errors), type
        fields = [f"  {e.field}: {e.message}" for e in self.errors]
        if fields and all(e.message in detail for e in self.errors):
            detail = ""  # for readers of `detail` alone, the API writes all fields into it
        super().__init__("\n".join([f"{title} ({status}): {detail}" if detail else f"{title} ({status})", *fields]))


def from_response(response: httpx.Response) -> ApiError:
    """The problem in a response of status 400 or more. If the body holds none, one is made from the status."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return ApiError(response.status_code, response.reason_phrase, response.text.strip()[:500])
    if isinstance(body.get("error"), dict):  # the error format of OpenAI's API, which the inference service uses
        refused = body["error"]
        return ApiError(
            response.status_code,
            response.reason_phrase,
            str(refused.get("message", "")),
            type=str(refused.get("code") or "about:blank"),
        )
    errors = [
        FieldError(str(e.get("field", "")), str(e.get("message", ""))) for e in _list(body.get("errors")) if isinstance(e, dict)
    ]
    title = str(body.get("title") or response.reason_phrase)
    detail = body.get("detail")
    return ApiError(
        response.status_code, title, "" if detail is None else str(detail), errors, str(body.get("type", "about:blank"))
    )


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _reason(cause: Exception) -> str:
    return str(cause) or type(cause).__name__

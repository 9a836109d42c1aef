"""Reads JSON bodies strictly. A body that is no plain UTF-8 JSON document is refused with what to change."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from services.inference.errors import ApiError

INLINE_BYTES = 64 << 10  # parsing takes about 1 ms; larger bodies are parsed beside the event loop


class JsonRoute(APIRoute):
    """A route whose body, if it takes one, is parsed by `parsed` instead of FastAPI's `json.loads`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if self.body_field is not None:
                _check_headers(request)
                raw = await request.body()
                if not raw.strip():
                    raise _bad("The body is empty. Send a JSON object.")
                value = await asyncio.to_thread(parsed, raw) if len(raw) > INLINE_BYTES else parsed(raw)
                request._json = value  # where Request.json() keeps its result, which FastAPI asks for next
            return await handler(request)

        return handle


def parsed(raw: bytes) -> Any:
    """The JSON document. Raises ApiError 400 for everything that RFC 8259 does not allow, and for names that repeat."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise _bad(f"The body is not valid UTF-8: byte {err.start} is {raw[err.start]:#04x}.") from err
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as err:
        raise _bad(f"The body is not valid JSON: {err.msg} at line {err.lineno}, column {err.colno}.") from err
    except RecursionError as err:
        raise _bad("The body's arrays and objects are nested too deeply.") from err
    except ValueError as err:  # a whole number of thousands of digits
        raise _bad("The body holds a number with too many digits.") from err
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_headers(request: Request) -> None:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiError(
            415,
            f"The body is encoded as {encoding!r}. Send it uncompressed, without Content-Encoding.",
            code="unsupported_encoding",
        )
    given = request.headers.get("Content-Type", "")
    if given == "application/json":  # what nearly all clients send
        return
    header = Message()
    header["Content-Type"] = given or "none/none"
    kind, charset = header.get_content_type(), str(header.get_param("charset", "utf-8")).lower()
    is_json = kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
    if not is_json or charset not in ("utf-8", "utf8", "us-ascii"):
        told = f"not {given!r}" if given else "which is missing"
        raise ApiError(415, f"Send the header `Content-Type: application/json`, {told}.", code="unsupported_media_type")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _bad(f"The body has {repeated!r} twice in one object.")
    return value


def _constant(name: str) -> Any:
    raise _bad(f"The body holds {name}, which is not a JSON number.")


def _check_surrogates(value: Any) -> None:
    r"""An escape such as `\ud83d` without its other half is no character, so no tokenizer and no UTF-8 answer can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as err:
        raise _bad(f"The body holds {err.object[err.start]!r}, half of a pair of surrogates.") from err


def _bad(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")

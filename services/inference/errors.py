"""Errors in the format that OpenAI clients understand: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ApiError(Exception):
    """Ends a request with `status`. `param` names the field that is wrong; `code` is meant for programs."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: int = 0):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after_s = status, message, param, code, retry_after_s

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def install(app: FastAPI) -> None:
    """Make `app` report every error in this format."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, err: ApiError) -> JSONResponse:
        return err.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, err: RequestValidationError) -> JSONResponse:
        return _first(err).response()

    @app.exception_handler(HTTPException)
    async def _http(_: Request, err: HTTPException) -> JSONResponse:
        return ApiError(err.status_code, str(err.detail)).response()

    @app.exception_handler(Exception)
    async def _crash(request: Request, err: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=err)
        return ApiError(500, "The server failed. Its log has the reason.", code="internal_error").response()


def _first(err: RequestValidationError) -> ApiError:
    """The first problem that pydantic found. The field's path is written as clients write it: `messages[0].content`."""
    problem = err.errors()[0]
    if problem["type"] == "json_invalid":
        return ApiError(400, f"The body is not valid JSON: {problem['ctx']['error']}.", code="invalid_json")
    if problem["type"] == "unsupported":
        ctx = problem["ctx"]
        return ApiError(400, problem["msg"], param=ctx["param"], code="unsupported_parameter")
    param = _path(problem["loc"][1:])
    if problem["type"] == "extra_forbidden":
        return ApiError(
            400, f"Unknown parameter {param!r}; remove it or check the spelling.", param=param, code="unknown_parameter"
        )
    message = str(problem["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param or 'body'}: {message}", param=param or None, code="invalid_value")


def _path(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the name (`str`, `list[str]`) or the tag (`<parts>`) of a union's member to the path. Callers did not write it.
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part not in ("str",):
            text += f".{part}" if text else part
    return text

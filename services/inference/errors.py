"""Errors in the format that OpenAI clients understand: `{"error": {message, type, param, code}}`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = Field(description="the field that is wrong")
    code: str | None = Field(description="the kind of error, for programs")


class ErrorBody(BaseModel):
    error: ErrorDetail


class ApiError(Exception):
    """Ends a request with `status`. `param` names the field that is wrong; `code` is meant for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int = 0,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})
        if retry_after_s:
            self.headers["Retry-After"] = str(retry_after_s)
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        detail = ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=detail).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, self.headers)


def install(app: FastAPI) -> None:
    """Make `app` report every error in this format."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, err: ApiError) -> JSONResponse:
        return err.response()

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, err: RequestValidationError) -> JSONResponse:
        return _first(err).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, err: HTTPException) -> JSONResponse:
        return _http_error(request, err).response()

    @app.exception_handler(Exception)
    async def _crash(request: Request, err: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=err)
        return ApiError(500, "The server failed. Its log has the reason.", code="internal_error").response()


def _http_error(request: Request, err: HTTPException) -> ApiError:
    """Errors of the framework: an unknown path, a method that a path does not have."""
    path = request.scope["path"]
    if err.status_code == 404:
        return ApiError(404, f"There is nothing at {path!r}. GET /openapi.json lists the paths.", code="unknown_path")
    if err.status_code == 405:
        allowed = (err.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        message = f"{path!r} does not take {request.method}; it takes {allowed}."
        return ApiError(405, message, code="method_not_allowed", headers={"Allow": allowed})
    return ApiError(err.status_code, str(err.detail), headers=err.headers)


def _first(err: RequestValidationError) -> ApiError:
    """The first problem that pydantic found. The field's path is written as clients write it: `messages[0].content`."""
    problem = err.errors()[0]
    at, ctx = _path(problem["loc"][1:]), problem.get("ctx") or {}
    if problem["type"] == "unsupported":
        return ApiError(400, ctx["message"], param=_joined(at, ctx["param"]), code="unsupported_parameter")
    if problem["type"] == "wrong":
        param = _joined(at, ctx["param"])
        return ApiError(400, f"{param}: {ctx['message']}", param=param, code="invalid_value")
    if problem["type"] == "extra_forbidden":
        param = _joined(_path(problem["loc"][1:-1]), str(problem["loc"][-1]))
        message = f"Unknown parameter {param!r}; remove it or check the spelling."
        return ApiError(400, message, param=param, code="unknown_parameter")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{at or 'body'}: {message}.", param=at or None, code="invalid_value")


def _joined(at: str, param: str) -> str:
    return ".".join(filter(None, (at, param)))


def _path(loc: tuple[int | str, ...]) -> str:
    # Pydantic adds the name (`str`, `list[str]`) or the tag (`<parts>`) of a union's member to the path. Callers did not write it.
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part != "str":
            text += f".{part}" if text else part
    return text

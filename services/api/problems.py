"""Errors as problem details (RFC 9457): one table of kinds and one exception.

Every error response of this service is built here. FastAPI's own refusals (validation, 404, 405, 413) get the same shape.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from controlplane.cursors import BadCursor
from controlplane.errors import CheckpointNotFound, Conflict, NodeNotFound, NotFound, StageNotFound
from controlplane.plans import PlanOutdated

MEDIA_TYPE = "application/problem+json"
URN = "urn:nanochat:problem:"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its HTTP status and its title for people."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "unauthorized": Kind(401, "A valid API key is needed"),
    "forbidden": Kind(403, "This key's role does not allow that"),
    "not-found": Kind(404, "There is nothing at this address"),
    "run-not-found": Kind(404, "No such run"),
    "stage-not-found": Kind(404, "The run has no such stage"),
    "node-not-found": Kind(404, "The lineage has no such node"),
    "sweep-not-found": Kind(404, "No such sweep"),
    "recipe-not-found": Kind(404, "No such recipe"),
    "checkpoint-not-found": Kind(404, "No such checkpoint"),
    "key-not-found": Kind(404, "No such API key"),
    "webhook-not-found": Kind(404, "No such webhook or delivery"),
    "worker-not-found": Kind(404, "No such worker"),
    "file-not-found": Kind(404, "No such file"),
    "report-not-ready": Kind(404, "The report has not been made yet"),
    "method-not-allowed": Kind(405, "This address does not take that method"),
    "conflict": Kind(409, "Not possible in the present state"),
    "run-finished": Kind(409, "The run is already finished"),
    "plan-outdated": Kind(409, "The run would not follow this plan any more"),
    "checkpoint-not-promotable": Kind(409, "This checkpoint cannot be promoted"),
    "files-damaged": Kind(409, "The files are not what the manifest says"),
    "body-too-large": Kind(413, "The request body is too large"),
    "range-not-satisfiable": Kind(416, "The range begins behind the end of the file"),
    "invalid-request": Kind(422, "The request is not valid"),
    "invalid-recipe": Kind(422, "The recipe cannot run"),
    "idempotency-key-reused": Kind(422, "This Idempotency-Key was used for another request"),
    "too-many-requests": Kind(429, "Too many requests"),
    "internal": Kind(500, "The server failed"),
    "database-unavailable": Kind(503, "The database does not answer"),
    "malformed-body": Kind(400, "The request body cannot be read"),
    "bad-cursor": Kind(400, "The cursor does not come from this list"),
    "bad-event-id": Kind(400, "The Last-Event-ID does not come from this stream"),
}
# What of a run is missing; of anything else that is missing, the address says what it is.
_MISSING: dict[type[Exception], str] = {
    StageNotFound: "stage-not-found",
    CheckpointNotFound: "checkpoint-not-found",
    NodeNotFound: "node-not-found",
}
_BY_STATUS = {400: "malformed-body", 404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}


class FieldProblem(BaseModel):
    """One wrong field of a request."""

    field: str = Field(description="Dotted path of the field.", examples=["base.total_batch_size"])
    message: str = Field(description="What is wrong with it and what to do.")


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="Stable identifier of the kind of problem.", examples=[URN + "run-not-found"])
    title: str = Field(description="The kind of problem in words for people.")
    status: int = Field(ge=400, le=599, description="The HTTP status of the response.")
    detail: str = Field(description="What is wrong in this case, where, and what to do.")
    errors: list[FieldProblem] = Field(default=[], description="The wrong fields, if the problem is in fields.")


class ProblemError(Exception):
    """Raised anywhere in a request; the response is the problem that it names. `errors` is a list of (field, message)."""

    def __init__(
        self, kind: str, detail: str, errors: Iterable[tuple[str, str]] = (), *, headers: Mapping[str, str] | None = None
    ):
        super().__init__(detail)
        self.kind, self.detail, self.errors, self.headers = kind, detail, list(errors), headers


def responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """What an endpoint declares in OpenAPI: its own kinds of problem and those that every endpoint has, by status."""
    by_status: dict[int, list[str]] = {}
    for kind in ("unauthorized", "too-many-requests", "internal", "database-unavailable", *kinds):
        by_status.setdefault(KINDS[kind].status, []).append(kind)
    return {status: _declaration(kinds) for status, kinds in sorted(by_status.items())}


def kind_of(error: Exception) -> str:
    """The kind of problem that an exception is answered with, where that does not depend on the request."""
    if isinstance(error, ProblemError):
        return error.kind
    if isinstance(error, NotFound):
        return "not-found"
    if isinstance(error, Conflict):
        return "conflict"
    return "invalid-request" if isinstance(error, RequestValidationError) else "internal"


def install(app: FastAPI) -> None:
    """Answer every exception with a problem detail."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(NotFound, _on_not_found)
    app.add_exception_handler(Conflict, _on_conflict)
    app.add_exception_handler(PlanOutdated, _on_outdated)
    app.add_exception_handler(BadCursor, _on_bad_cursor)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(DataError, _on_bad_value)
    for error in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(error, _on_database)
    app.add_exception_handler(Exception, _on_crash)


def response(
    kind: str,
    detail: str,
    errors: Iterable[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response for a problem of this kind. `errors` is a list of (field, message)."""
    known = KINDS[kind]
    problem = Problem(
        type=URN + kind,
        title=known.title,
        status=known.status,
        detail=detail,
        errors=[FieldProblem(field=field, message=message) for field, message in errors],
    )
    return JSONResponse(problem.model_dump(mode="json"), problem.status, headers, MEDIA_TYPE)


def _declaration(kinds: list[str]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"{KINDS[k].title} (`{k}`)" for k in kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return response(error.kind, error.detail, error.errors, error.headers)


async def _on_outdated(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PlanOutdated)
    return response("plan-outdated", str(error), error.differences)


async def _on_not_found(request: Request, error: Exception) -> JSONResponse:
    kinds = {
        "sweep_id": "sweep-not-found",
        "checkpoint_id": "checkpoint-not-found",
        "key_id": "key-not-found",
        "webhook_id": "webhook-not-found",
        "worker_id": "worker-not-found",
    }
    named = next((kind for name, kind in kinds.items() if name in request.path_params), "run-not-found")
    return response(_MISSING.get(type(error), named), str(error))


async def _on_conflict(request: Request, error: Exception) -> JSONResponse:
    return response("conflict", str(error))


async def _on_bad_cursor(request: Request, error: Exception) -> JSONResponse:
    return response("bad-cursor", str(error), [("query cursor", str(error))])


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [(_field(e["loc"]), _message(e)) for e in error.errors()]
    return response("invalid-request", "; ".join(f"{field}: {message}" for field, message in errors), errors)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _BY_STATUS.get(error.status_code, "internal")
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return response(kind, f"{request.method} {request.url.path}: {error.detail}", headers=headers)


async def _on_bad_value(request: Request, error: Exception) -> JSONResponse:
    log.warning("the database refused a value in %s %s: %s", request.method, request.url.path, error)
    return response(
        "invalid-request", "the request contains a value that the database cannot store, such as a NUL character; remove it"
    )


async def _on_database(request: Request, error: Exception) -> JSONResponse:
    log.warning("the database does not answer: %s", error)
    return response(
        "database-unavailable", "try again in a few seconds; running stages are not affected", headers={"Retry-After": "5"}
    )


async def _on_crash(request: Request, error: Exception) -> JSONResponse:
    # Starlette logs the traceback after this response has been sent.
    return response("internal", f"{request.method} {request.url.path} failed; see the server's log for the reason")


def _allowed(request: Request) -> str:
    # Starlette lists the methods of the first route at an address only; an address may have several routes.
    def taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(taken, ("GET", "POST", "PUT", "PATCH", "DELETE")))


def _field(loc: tuple[int | str, ...]) -> str:
    place, *path = loc
    if not path:
        return str(place)
    # Fields of the body are named by path alone, as the client wrote them; others get their place first, such as "query limit".
    return ".".join(map(str, path)) if place == "body" else f"{place} {'.'.join(map(str, path))}"


def _message(error: Mapping[str, Any]) -> str:
    if isinstance(error.get("input"), bytes):  # FastAPI parses a body only if the request says that it is JSON
        return "it is not read as JSON; send the header `Content-Type: application/json`"
    match error["type"]:
        case "extra_forbidden":
            return "unknown field; remove it or check the spelling"
        case "missing":
            return "is required"
        case "json_invalid":
            return f"the body is not valid JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    return str(error["msg"]).removeprefix("Value error, ")

"""Authentication and roles as parameter types.

An endpoint that takes a `Caller` refuses requests without a valid API key. One that takes an `Operator` or an `Admin` also refuses
keys of a lesser role, and a request that is no GET is written to the audit trail before it is carried out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError

from controlplane import audit, keys
from controlplane.db import SessionFactory
from controlplane.models import ApiKey
from controlplane.roles import Role
from services.api.database import Ledger
from services.api.problems import ProblemError, kind_of
from services.api.rate_limit import RateLimit

_scheme = HTTPBearer(auto_error=False, description="An API key. The first one is in `keys/admin.key` below NANOCHAT_HOME.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="nanochat"'}


def _authenticate(request: Request, credentials: Credentials, ledger: Ledger) -> ApiKey:
    if credentials is None:
        raise ProblemError(
            "unauthorized", "send the header `Authorization: Bearer <key>`; see NANOCHAT_API_KEY_FILE", headers=CHALLENGE
        )
    limit: RateLimit = request.app.state.rate_limit
    address = f"address {request.client.host if request.client else ''}"
    if limit.is_empty(address):  # too many wrong keys: not even the database is asked
        _take(limit, address)
    with ledger() as session:
        key = keys.verify(session, credentials.credentials)
    if key is None:
        _take(limit, address)
        raise ProblemError(
            "unauthorized",
            "this key is unknown, has expired or was revoked; check NANOCHAT_API_KEY(_FILE)",
            headers=CHALLENGE,
        )
    _take(limit, key.id)
    _refuse_unknown_query(request)
    return key


def _refuse_unknown_query(request: Request) -> None:
    """Raises RequestValidationError if the query has parameters that the document does not name: a misspelt filter filters nothing."""
    if not request.query_params:
        return
    operation = request.app.openapi()["paths"][request.scope["route"].path_format][request.method.lower()]
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    unknown = [(name, value) for name, value in request.query_params.multi_items() if name not in known]
    if unknown:
        message = f"is not a parameter of this request; it takes {', '.join(sorted(known)) or 'none'}"
        raise RequestValidationError(
            [{"type": "unknown_parameter", "loc": ("query", name), "msg": message, "input": value} for name, value in unknown]
        )


Caller = Annotated[ApiKey, Depends(_authenticate)]


def at_least(role: Role) -> Callable[..., Iterator[ApiKey]]:
    """The dependency that refuses keys of a lesser role and writes the audit trail."""

    def check(request: Request, caller: Caller, ledger: Ledger) -> Iterator[ApiKey]:
        if not caller.role.includes(role):
            raise ProblemError("forbidden", f"this key has the role {caller.role}; the request needs the role {role}")
        if request.method == "GET":
            yield caller
            return
        action = str(request.scope["route"].name)
        with ledger.begin() as session:
            entry = audit.begin(session, caller, action, {k: str(v)[:200] for k, v in request.path_params.items()})
        try:
            yield caller
        except Exception as err:
            _end(ledger, entry, kind_of(err), None)
            raise
        _end(ledger, entry, getattr(request.state, "outcome", "done"), getattr(request.state, "made", None))

    return check


Operator = Annotated[ApiKey, Depends(at_least(Role.OPERATOR))]
Admin = Annotated[ApiKey, Depends(at_least(Role.ADMIN))]


def _take(limit: RateLimit, name: str) -> None:
    wait = limit.take(name)
    if wait > 0:
        raise ProblemError(
            "too-many-requests", f"wait {wait:.1f} s and try again", headers={"Retry-After": str(math.ceil(wait))}
        )


def _end(ledger: SessionFactory, entry: int, outcome: str, made: str | None) -> None:
    # The request itself has ended: without a database, its row keeps no outcome.
    with suppress(SQLAlchemyError), ledger.begin() as session:
        audit.end(session, entry, outcome, made)

"""Authentication as a parameter type: an endpoint that takes a `Caller` refuses requests without a valid API key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from controlplane import keys
from services.api.database import Ledger
from services.api.problems import ProblemError

_scheme = HTTPBearer(auto_error=False, description="An API key. The first one is in `keys/admin.key` below NANOCHAT_HOME.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_scheme)]
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="nanochat"'}


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of an API key. `id` and `name` are the key's."""

    id: str
    name: str


def _authenticate(credentials: Credentials, ledger: Ledger) -> Principal:
    if credentials is None:
        raise ProblemError(
            "unauthorized", "send the header `Authorization: Bearer <key>`; see NANOCHAT_API_KEY_FILE", headers=CHALLENGE
        )
    with ledger() as session:
        key = keys.verify(session, credentials.credentials)
    if key is None:
        raise ProblemError(
            "unauthorized", "this key is unknown or has been revoked; check NANOCHAT_API_KEY(_FILE)", headers=CHALLENGE
        )
    return Principal(key.id, key.name)


Caller = Annotated[Principal, Depends(_authenticate)]

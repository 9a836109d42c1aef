"""The caller's own key; and, for admins, all API keys and the audit trail. An admin's key manages the keys of all projects."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from controlplane import audit, keys
from controlplane.roles import DEFAULT_PROJECT, Role
from controlplane.schemas import AuditPage, KeyView, OwnKeyView
from nanochat.contract.bounds import one_line
from services.api.auth import Admin, Caller
from services.api.database import Ledger
from services.api.fields import BIGINT, Moment
from services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["keys"])

REFUSED_BODY = ("forbidden", "malformed-body", "body-too-large", "invalid-request")
KeyName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(one_line)]
Project = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
KeyId = Annotated[str, Path(pattern=r"^k_[0-9a-f]{16}$", description="Id of the key, as in the list of keys.")]


Expiry = Annotated[
    Moment | None,
    Field(description="From when on the key is refused, with a time zone; null means never."),
]


class KeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: KeyName = Field(description="Whom or what the key is for.", examples=["anna's laptop"])
    role: Role = Field(default=Role.OPERATOR, description="What the key may do.")
    project: Project = Field(
        default=DEFAULT_PROJECT, description="Project whose runs the key sees. A project exists as soon as a key names it."
    )
    expires_at: Expiry = None


class ExpiryRequest(BaseModel):
    """When a key expires."""

    model_config = ConfigDict(extra="forbid")

    expires_at: Expiry


class NewKeyView(KeyView):
    """A new key with its secret."""

    secret: str = Field(description="The key itself, for the header `Authorization`. It is shown only this once.")


class KeyList(BaseModel):
    """The API keys."""

    items: list[KeyView] = Field(description="All keys, also revoked and expired ones, the newest first.")


@router.get("/key", responses=responses())
def get_own_key(caller: Caller) -> OwnKeyView:
    """Get the key that the request was sent with: its name, what it may do, in which project, and until when."""
    return OwnKeyView.model_validate(caller)


@router.post("/keys", status_code=201, responses=responses(*REFUSED_BODY))
def make_key(request: Request, caller: Admin, ledger: Ledger, body: KeyRequest) -> NewKeyView:
    """Make an API key. The answer is the only one that has its secret."""
    with ledger.begin() as session:
        key, secret = keys.create(session, body.name, body.role, project=body.project, expires_at=body.expires_at)
        session.refresh(key)
    request.state.made = key.id
    return NewKeyView(**KeyView.model_validate(key).model_dump(), secret=secret)


@router.get("/keys", responses=responses("forbidden"))
def list_keys(caller: Admin, ledger: Ledger) -> KeyList:
    """List all API keys, without their secrets."""
    with ledger() as session:
        return KeyList(items=[KeyView.model_validate(key) for key in keys.every(session)])


@router.patch("/keys/{key_id}", responses=responses(*REFUSED_BODY, "key-not-found", "conflict"))
def expire_key(caller: Admin, ledger: Ledger, key_id: KeyId, body: ExpiryRequest) -> KeyView:
    """Set the time from which on a key is refused. 409 for the last admin's key that never expires."""
    with ledger.begin() as session:
        return KeyView.model_validate(keys.expire(session, key_id, body.expires_at))


@router.delete("/keys/{key_id}", responses=responses("forbidden", "key-not-found", "conflict", "invalid-request"))
def revoke_key(caller: Admin, ledger: Ledger, key_id: KeyId) -> KeyView:
    """Revoke a key for good. Revoking it again has no effect. 409 for the last admin's key that never expires."""
    with ledger.begin() as session:
        return KeyView.model_validate(keys.revoke(session, key_id))


@router.get("/audit", responses=responses("forbidden", "invalid-request"))
def get_audit(
    caller: Admin,
    ledger: Ledger,
    before: Annotated[int | None, Query(ge=1, le=BIGINT, description="Return only entries with a smaller id.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of entries on a page.")] = 100,
) -> AuditPage:
    """List the requests that asked for a change, newest first: who asked, when, for what, and how it ended."""
    with ledger() as session:
        return audit.page(session, before=before, limit=limit)

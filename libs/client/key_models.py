"""The control API's answers about keys and the audit trail. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class OwnKey(BaseModel):
    """The key that a client sends."""

    id: str
    name: str
    role: str
    project: str
    expires_at: datetime | None


class Key(OwnKey):
    """An API key, without its secret."""

    created_at: datetime
    revoked_at: datetime | None


class NewKey(Key):
    """A new key. Its secret is shown only once."""

    secret: str


class AuditEntry(BaseModel):
    """A request that asked for a change. `outcome` is `done`, the kind of the refusal, or None if it never ended."""

    id: int
    at: datetime
    key_id: str
    key_name: str
    project: str
    action: str
    target: dict[str, str]
    outcome: str | None
    made: str | None


class AuditPage(BaseModel):
    items: list[AuditEntry]
    next_before: int | None = None

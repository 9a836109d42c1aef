"""API keys. A key is 256 random bits, so a plain SHA-256 of it can be stored: it can neither be guessed nor reversed."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, NotFound
from controlplane.models import ApiKey
from controlplane.roles import DEFAULT_PROJECT, Role

PREFIX = "nc_"


def create(
    session: Session,
    name: str,
    role: Role = Role.OPERATOR,
    *,
    project: str = DEFAULT_PROJECT,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key. Returns it with its secret, which is not stored and cannot be shown again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name=name, digest=_digest(secret), role=role, project=project, expires_at=expires_at)
    session.add(key)
    session.flush()
    return key, secret


def verify(session: Session, secret: str) -> ApiKey | None:
    """The key that this secret belongs to; None if there is none, or it was revoked or has expired."""
    digest = _digest(secret)
    key = session.scalars(select(ApiKey).where(ApiKey.digest == digest, _valid())).first()
    return key if key is not None and hmac.compare_digest(key.digest, digest) else None


def revoke(session: Session, key_id: str) -> ApiKey:
    """Revoke a key. Revoking it again has no effect. Raises NotFound, and Conflict for the last valid key of an admin."""
    key = _locked(session, key_id)
    if key.revoked_at is None:
        key.revoked_at = session.scalar(select(func.clock_timestamp()))
        _an_admin_remains(session, key)
    return key


def expire(session: Session, key_id: str, at: datetime | None) -> ApiKey:
    """Set the time from which a key is refused; None means never. Raises NotFound, and Conflict as `revoke` does."""
    key = _locked(session, key_id)
    key.expires_at = at
    _an_admin_remains(session, key)
    return key


def every(session: Session) -> list[ApiKey]:
    """All keys, also revoked and expired ones, the newest first."""
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at.desc(), ApiKey.id)))


def ensure_first(session: Session, path: Path) -> ApiKey:
    """The key whose secret is in the file at `path`. The file (mode 0600) and the key are made if they are missing.

    If the database is new but the file exists, the key is made for the file's secret, so that clients that have read the file
    keep working.
    """
    digest = _digest(secret_in(path, PREFIX))
    session.execute(
        insert(ApiKey).values(name="admin", digest=digest, role=Role.ADMIN).on_conflict_do_nothing(index_elements=["digest"])
    )
    return session.scalars(select(ApiKey).where(ApiKey.digest == digest)).one()


def secret_in(path: Path, prefix: str = "") -> str:
    """The secret in the file at `path` (mode 0600). It is made of 256 random bits if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_private(path, prefix + secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8").strip()


def _valid() -> ColumnElement[bool]:
    now = func.clock_timestamp()
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


def _locked(session: Session, key_id: str) -> ApiKey:
    """The key. All keys of admins are locked, so that two requests cannot take the last two of them."""
    session.execute(select(ApiKey.id).where(ApiKey.role == Role.ADMIN).order_by(ApiKey.id).with_for_update())
    key = session.get(ApiKey, key_id, populate_existing=True)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}")
    return key


def _an_admin_remains(session: Session, changed: ApiKey) -> None:
    """Raises Conflict if `changed` was the last valid key of an admin that never expires."""
    if changed.role is not Role.ADMIN:
        return
    session.flush()
    lasting = select(ApiKey.id).where(_valid(), ApiKey.role == Role.ADMIN, ApiKey.expires_at.is_(None)).limit(1)
    if session.scalar(lasting) is None:
        raise Conflict("nobody could manage keys any more; first make another admin key that does not expire")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _write_private(path: Path, secret: str) -> None:
    """Write the whole file or nothing, never readable by others. If two threads or processes race, the first file stays."""
    fd, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)  # mkstemp: mode 0600 and a unique name
    tmp = Path(name)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(secret + "\n")
    try:
        os.link(tmp, path)
    except FileExistsError:
        pass
    finally:
        tmp.unlink()

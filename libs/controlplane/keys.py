"""API keys. A key is 256 random bits, so a plain SHA-256 of it can be stored: it can neither be guessed nor reversed."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.models import ApiKey

PREFIX = "nc_"


def create(session: Session, name: str) -> tuple[ApiKey, str]:
    """Make a key. Returns it with its secret, which is not stored and cannot be shown again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(name=name, digest=_digest(secret))
    session.add(key)
    session.flush()
    return key, secret


def verify(session: Session, secret: str) -> ApiKey | None:
    """The key that this secret belongs to; None if there is none or it was revoked."""
    digest = _digest(secret)
    key = session.scalars(select(ApiKey).where(ApiKey.digest == digest, ApiKey.revoked_at.is_(None))).first()
    return key if key is not None and hmac.compare_digest(key.digest, digest) else None


def revoke(session: Session, key_id: str) -> ApiKey:
    """Revoke a key. Revoking it again has no effect. Raises NotFound."""
    key = session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}")
    key.revoked_at = key.revoked_at or session.scalar(select(func.now()))
    return key


def ensure_first(session: Session, path: Path) -> ApiKey:
    """The key whose secret is in the file at `path`. The file (mode 0600) and the key are made if they are missing.

    If the database is new but the file exists, the key is made for the file's secret, so that clients that have read the file
    keep working.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _write_private(path, PREFIX + secrets.token_urlsafe(32))
    digest = _digest(path.read_text(encoding="utf-8").strip())
    session.execute(insert(ApiKey).values(name="admin", digest=digest).on_conflict_do_nothing(index_elements=["digest"]))
    return session.scalars(select(ApiKey).where(ApiKey.digest == digest)).one()


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

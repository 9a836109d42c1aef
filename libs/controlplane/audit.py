"""The audit trail: which key asked for what. A row is written before the request is carried out, and completed after it."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from controlplane.models import ApiKey, AuditEntry
from controlplane.schemas import AuditPage, AuditView


def begin(session: Session, key: ApiKey, action: str, target: dict[str, str]) -> int:
    """Record that a key asks for an action. Returns the id of the row."""
    entry = AuditEntry(key_id=key.id, key_name=key.name, project=key.project, action=action, target=target)
    session.add(entry)
    session.flush()
    return entry.id


def end(session: Session, entry_id: int, outcome: str, made: str | None) -> None:
    """Record how the request ended. `made` is the id of what it created."""
    session.execute(update(AuditEntry).where(AuditEntry.id == entry_id).values(outcome=outcome, made=made))


def page(session: Session, *, before: int | None = None, limit: int = 100) -> AuditPage:
    """Entries, newest first; those with a smaller id than `before`."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    rows = session.scalars(query).all()
    items = [AuditView.model_validate(row) for row in rows]
    return AuditPage(items=items, next_before=items[-1].id if len(items) == limit else None)

"""Cursors of pages: where the last page ended, and for which query.

A cursor is opaque to clients. It carries a digest, so that one which was changed, or belongs to another query, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from controlplane.errors import LedgerError

DIGEST = 12  # characters


class BadCursor(LedgerError):
    """400: the cursor does not come from a page of this query."""


def encode(query: object, position: Sequence[str | None]) -> str:
    """`query` is everything that decides which items there are and in which order; its `repr` identifies it."""
    body = json.dumps(list(position))
    return base64.urlsafe_b64encode(f"{_digest(query, body)}{body}".encode()).decode()


def decode(query: object, cursor: str) -> list[str | None]:
    """The position that `encode` was given. Raises BadCursor."""
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
        digest, body = text[:DIGEST], text[DIGEST:]
        if digest == _digest(query, body):
            position: list[str | None] = json.loads(body)
            return position
    except (binascii.Error, ValueError):
        pass
    raise BadCursor("this cursor does not come from a page of this query; start again without a cursor")


def _digest(query: object, body: str) -> str:
    return hashlib.sha256(f"{query!r}\n{body}".encode(errors="replace")).hexdigest()[:DIGEST]

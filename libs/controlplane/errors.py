"""What the ledger refuses, for people. The API maps each class to an HTTP status."""

from __future__ import annotations


class LedgerError(Exception):
    """Base of all refusals."""


class NotFound(LedgerError):
    """404: there is no such thing."""


class Conflict(LedgerError):
    """409: not in the state it is in now."""


class FenceLost(LedgerError):
    """The attempt is no longer the stage's current one, or has ended; its writer must stop."""


class IllegalTransition(LedgerError):
    """A status change that the table does not allow: a bug, never a user's mistake."""

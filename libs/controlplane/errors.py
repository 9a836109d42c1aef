"""Errors of the ledger, with messages for people. The API answers each class with the HTTP status given here."""

from __future__ import annotations


class LedgerError(Exception):
    """Base class of the ledger's errors."""


class NotFound(LedgerError):
    """404: no such run, key or whatever the address names."""


class StageNotFound(NotFound):
    """404: the run is there, but it has no such stage."""


class CheckpointNotFound(NotFound):
    """404: the run is there, but it has no such checkpoint."""


class NodeNotFound(NotFound):
    """404: the run is there, but its lineage has no such node."""


class Conflict(LedgerError):
    """409: not possible in the present state."""


class FenceLost(LedgerError):
    """The attempt has ended or is no longer the stage's current one. Its supervisor must stop."""


class IllegalTransition(LedgerError):
    """A status change that `lifecycle.TRANSITIONS` does not allow. Always a bug, never a user's mistake."""

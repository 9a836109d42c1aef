"""Roles of API keys. Standard library only."""

from __future__ import annotations

from enum import StrEnum

DEFAULT_PROJECT = "default"


class Role(StrEnum):
    """What a key may do. Each role may do what the ones before it may.

    viewer: read. operator: start and steer runs, manage checkpoints. admin: manage keys, read the audit trail.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)

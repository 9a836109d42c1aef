"""A typed client of the platform's two HTTP APIs, and the `nanochat` command. Imports no other part of the platform."""

from __future__ import annotations

TYPE_CHECKING = False  # that of `typing` would import it
if TYPE_CHECKING:
    from typing import Any

    from client.client import Client
    from client.errors import ApiError, ClientError, FieldError, Unreachable
    from client.inference import Inference

__all__ = ["ApiError", "Client", "ClientError", "FieldError", "Inference", "Unreachable"]

_ERRORS = "client.errors"
_PLACES = {
    "ApiError": _ERRORS,
    "Client": "client.client",
    "ClientError": _ERRORS,
    "FieldError": _ERRORS,
    "Inference": "client.inference",
    "Unreachable": _ERRORS,
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: before `__main__` has dealt with Ctrl-C, nothing that takes long may be imported."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)

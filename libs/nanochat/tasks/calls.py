"""How a model writes the call of a function that is not one of its own tools, in training and when it answers."""

from __future__ import annotations

import json

JOIN = "\n\n"  # between messages that share a turn, as between a system message and the user's


def call_prefix(name: str) -> str:
    """The beginning of a call of a function, up to its arguments: a JSON object, after which `}` ends the call."""
    return f'{{"name": {json.dumps(name)}, "arguments": '


def call_text(name: str, arguments: str) -> str:
    """A whole call. `arguments` is a JSON object as text."""
    return f"{call_prefix(name)}{arguments}}}"

"""Text of others, such as names, logs and answers, without the control characters by which it could steer a terminal."""

from __future__ import annotations


def clean(text: str) -> str:
    """The text on one line."""
    return "".join(char if char.isprintable() else " " for char in text)


def visible(text: str) -> str:
    """The text with its lines and tabs."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")

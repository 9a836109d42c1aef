"""What a check found. The checks import only the standard library at their top, because missing packages are among the findings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """FINE needs nothing. ODD works, but worse than it could. BAD keeps some part of the platform from working."""

    FINE = "ok"
    ODD = "warning"
    BAD = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    text: str
    remedy: str = ""


def fine(check: str, text: str) -> Finding:
    return Finding(check, Level.FINE, text)


def odd(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, Level.ODD, text, remedy)


def bad(check: str, text: str, remedy: str) -> Finding:
    return Finding(check, Level.BAD, text, remedy)

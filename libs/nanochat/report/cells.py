"""Figures as text for people: numbers, durations, sizes and the names of figures. The pages escape it, each for its own language."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.planning import metrics

NONE = "–"
# Figures in a stage's results that are not metrics of a step.
LABELS = {
    "wall_clock_seconds": "wall-clock",
    "train_seconds": "training time",
    "bpb": "bits per byte",
    "params": "parameters",
    "flops_per_token": "FLOPs per token",
    "world_size": "processes",
    "chatcore": "ChatCORE",
    "chatcore_5": "ChatCORE without SpellingBee, as in nanochat's README",
    "sandbox": "programs were confined by",
    "rows_measured": "conversations measured",
    "rows_longer": "of these longer than the context, cut to it",
    "pass_at_8": "pass@8",
    "pass_at_8_before": "pass@8 before training",
    "stderr": "standard error",
    "ratio": "bytes per token",
    "fewer_pct": "fewer tokens than it (%)",
    "n": "problems",
}
MAX_ITEMS = 60  # of a longer list, the first ones are shown and the others counted


def number(key: str, value: Any) -> str:
    """Format a value of any JSON type. A number whose `key` ends with "seconds" is shown as a duration."""
    if value is None or value == "" or (key == "stderr" and value == 0):  # all right or all wrong: the formula says nothing
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and key.endswith("seconds"):
        return duration(value)
    if isinstance(value, int | float) and key.endswith("_pct"):
        return f"{value:.1f}"
    if isinstance(value, int | float) and key.endswith("_bytes"):
        return size(round(value))
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping):
        return _joined([f"{words(str(k))} {number(str(k), v)}" for k, v in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _joined([number(key, v) for v in value])
    return str(value)


def duration(seconds: float) -> str:
    """Format a duration, such as `3h35m`, `4m07s` or `12.3s`. It is rounded before it is split, so none reads `60.0s` or `60m00s`."""
    if not math.isfinite(seconds):
        return str(seconds)
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h{minutes:02d}m"


def size(count: int | None) -> str:
    """A number of bytes, such as `2.1 GB`."""
    if count is None:
        return NONE
    amount, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{count} B" if unit == "B" else f"{amount:.3g} {unit}"


def short(count: float | None) -> str:
    """A large number in three digits, such as `561M`, `11.2B` or `4,096`."""
    if count is None:
        return NONE
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(count) >= limit:
            scaled = count / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:,.0f}{unit}"
    return f"{count:,.0f}"


def clipped(text: str, limit: int) -> str:
    """The first characters of a text; an ellipsis says that there are more."""
    return text if len(text) <= limit else text[:limit] + "…"


def words(key: str) -> str:
    return LABELS.get(key) or metrics.label(key)


def _joined(items: Sequence[str]) -> str:
    more = [f"and {len(items) - MAX_ITEMS} more"] if len(items) > MAX_ITEMS else []
    return ", ".join([*items[:MAX_ITEMS], *more]) or NONE


def _float(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    magnitude = abs(value)
    if magnitude and (magnitude < 1e-3 or magnitude >= 1e9):
        return f"{value:.3e}"
    return f"{value:,.1f}" if magnitude >= 1000 else f"{value:.4f}"

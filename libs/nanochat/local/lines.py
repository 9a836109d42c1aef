"""One line of text for each event of a stage, as `local-run` prints it: every figure has a name and, where there is one, a unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from nanochat.planning import metrics
from nanochat.tasks.catalog import TASKS

# Units of planning/metrics.py that are too long for a line.
SHORT_UNITS = {
    "nats per token": "nats/token",
    "tokens per second": "tok/s",
}
# Figures of evaluations, whose names are keys: the name for people, and whether it is a share, shown in per cent.
FIGURES = {
    "accuracy": ("accuracy", True),
    "baseline": ("by guessing", True),
    "stderr": ("standard error", True),
    "n": ("questions", False),
    "centered": ("centered accuracy", False),
    "core": ("CORE", False),
    "chatcore": ("ChatCORE", False),
    "train": ("train", False),
    "val": ("validation", False),
}
TITLES = {task.name: task.title for task in TASKS} | {
    "bpb": "bits per byte",
    "core": "CORE",
    "chat": "chat tasks",
    "chatcore": "ChatCORE",
}
ACCURACIES = {"chat"}  # evaluations whose figures are the accuracies of tasks


def line_of(event: Mapping[str, Any]) -> str:
    """The event in one line. Empty for events that are not shown."""
    match event["kind"]:
        case "progress":
            return _progress(event)
        case "metric":
            return "  ".join([f"step {event['step']:,}", *_metrics(event["values"])])
        case "log":
            return str(event["message"])
        case "warning" | "error" as kind:
            return f"{kind}: {event['message']}" + (f"; {event['hint']}" if event.get("hint") else "")
        case "eval":
            return _evaluation(event)
        case "checkpoint":
            return f"checkpoint at step {event['step']:,}, {event['bytes'] / 1e6:,.1f} MB"
    return ""


def _progress(event: Mapping[str, Any]) -> str:
    done, total, unit = event["done"], event["total"], event["unit"]
    several = f"{unit}es" if unit.endswith("ch") else f"{unit}s"
    of = f" of {number(total)} {unit if total == 1 else several}" if total else f" {unit if done == 1 else several}"
    left = event.get("eta_s")
    parts = [f"{number(done)}{of}", f"{left:.0f} s left" if left and done else "", str(event.get("note") or "")]
    return ", ".join(part for part in parts if part)


def _metrics(values: Mapping[str, Any]) -> list[str]:
    return [metric(key, value) for key, value in values.items() if isinstance(value, int | float)]


def metric(key: str, value: float) -> str:
    """A figure of training with its short name and its unit: `loss 4.218 nats/token`, `10,240 tok/s`."""
    known = metrics.BY_KEY.get(key)
    if known is None:
        return f"{key} {number(value)}"
    unit = SHORT_UNITS.get(known.unit, known.unit)
    name = (known.short or key).replace(unit, "").strip() if unit else known.short or key
    return " ".join(part for part in (name, number(value), unit) if part)


def _evaluation(event: Mapping[str, Any]) -> str:
    name, values = str(event["name"]), event["values"]
    told = [(key, value) for key, value in values.items() if isinstance(value, int | float)]
    shown = [_figure(name, key, value) for key, value in told if (key, value) != ("stderr", 0)]  # all right or all wrong
    core_task = re.fullmatch(r"core/(.+)", name)
    title = f"CORE task {core_task[1]}" if core_task else TITLES.get(name, name.replace(": ", ", "))
    at = f" at step {event['step']:,}" if event.get("step") is not None else ""
    if len(shown) == 1 and shown[0].startswith(f"{title} "):
        return shown[0] + at
    return f"{title}{at}: {', '.join(shown)}" if shown else f"{title}{at}: no figure"


def _figure(evaluation: str, key: str, value: float) -> str:
    name, is_share = FIGURES.get(key, (TITLES.get(key, key), evaluation in ACCURACIES))
    if key == "n":
        return f"{value:,} {name.removesuffix('s') if value == 1 else name}"
    return f"{name} {100 * value:.1f} %" if is_share else f"{name} {number(value)}"


def number(value: float) -> str:
    whole = math.isfinite(value) and float(value).is_integer()
    return f"{value:,.0f}" if 9999.5 <= abs(value) < 1e15 or whole else f"{value:.4g}"

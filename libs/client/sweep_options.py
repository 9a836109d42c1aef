"""Reads the options of `nanochat sweep`: fields with their values or ranges, and the rule of early stopping."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from client import overrides

KINDS = {"grid", "random", "depths", "ablate"}


def space(
    grid: Sequence[str] | None,
    random: Sequence[str] | None,
    samples: int | None,
    seed: int | None,
    depths: str | None,
    ablate: Sequence[str] | None,
) -> dict[str, Any]:
    """The fields of the request that say which runs there are. Raises typer.BadParameter."""
    found: dict[str, Any] = {}
    if grid is not None:
        found["grid"] = {field: overrides.parse_values(text) for field, text in _fields("--grid", grid)}
    if random is not None:
        if samples is None:
            raise typer.BadParameter("say how many runs to draw", param_hint="--samples")
        axes = {field: _axis(text) for field, text in _fields("--random", random)}
        found["random"] = {"axes": axes, "samples": samples, "seed": seed or 0}
    elif samples is not None or seed is not None:
        raise typer.BadParameter("only random sweeps have it; give --random", param_hint="--samples, --seed")
    if depths is not None:
        found["depths"] = overrides.parse_values(depths)
    if ablate is not None:
        found["ablate"] = list(ablate)
    return found


def stop_early(text: str | None, keep: float | None) -> dict[str, Any] | None:
    """The rule in `val_bpb@0.25`, `base_train:val_bpb@500steps` or `val_bpb@1e9tokens`. Raises typer.BadParameter."""
    if text is None:
        if keep is not None:
            raise typer.BadParameter("needs --stop-early", param_hint="--keep")
        return None
    match = re.fullmatch(r"(?:([a-z0-9_]+):)?([A-Za-z0-9_./-]+)@([0-9.eE+-]+)(steps|tokens)?", text)
    try:
        after = float(match[3]) if match else None
    except ValueError:
        after = None
    if match is None or after is None:
        raise typer.BadParameter(f"{text!r} is not of the form val_bpb@0.25 or val_bpb@500steps", param_hint="--stop-early")
    rule = {"stage": match[1], "metric": match[2], "after": after, "unit": match[4], "keep": keep}
    return {key: value for key, value in rule.items() if value is not None}


def _fields(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for text in texts:
        field, equals, values = (part.strip() for part in text.partition("="))
        if not field or not equals or not values:
            raise typer.BadParameter(f"{text!r} is not of the form field=values", param_hint=option)
        if field in dict(found):
            raise typer.BadParameter(f"{field} is named twice", param_hint=option)
        found.append((field, values))
    return found


def _axis(text: str) -> dict[str, Any]:
    low, *rest = text.split(":")
    if not rest:
        return {"values": overrides.parse_values(text)}
    high, *marks = rest
    if unknown := set(marks) - {"log", "int"}:
        raise typer.BadParameter(f"{text!r}: {', '.join(sorted(unknown))} is neither log nor int", param_hint="--random")
    try:
        return {"min": float(low), "max": float(high), "log": "log" in marks, "integer": "int" in marks}
    except ValueError:
        raise typer.BadParameter(f"{text!r}: a range is MIN:MAX, two numbers", param_hint="--random") from None

"""Parses overrides as people write them: `base.num_iterations=20`.

The command line and `make demo SET=…` use this parser. The API and the processes behind `local-run` and `plan --gpus` take the
result as a JSON object.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from client.errors import ClientError

EXAMPLE = "base.num_iterations=20"


class OverrideError(ClientError):
    """An override that cannot be read."""


def parse(settings: Iterable[str], data: Path | None = None) -> dict[str, Any]:
    """Read `field=value` strings as {field: value}. If a field occurs twice, the last value wins.

    A value is read as JSON: a number, true, null, a list, "text in quotes". A value that is not JSON is text; it needs no
    quotes. Spaces around the field and the value are dropped. `data`, a folder of shards, comes first in the result, so that
    a setting can change it. Raises OverrideError.
    """
    found: dict[str, Any] = {}
    if data is not None:
        found["data.source"] = {"kind": "folder", "path": os.path.realpath(os.path.expanduser(data))}
    for setting in settings:
        field, equals, text = (part.strip() for part in setting.partition("="))
        if not field or not equals:
            raise OverrideError(f"{setting!r} is not of the form field=value, such as {EXAMPLE}")
        if not text:
            raise OverrideError(f'{setting!r} has no value; for an empty text write {field}=""')
        found[field] = _value(text)
    return found


def parse_values(text: str) -> list[Any]:
    """Values that are separated by commas, each read as by `parse`; all of them as one JSON list if they are one without brackets."""
    try:
        found: list[Any] = _json(f"[{text}]")
    except ValueError:
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return found


def parse_text(text: str) -> dict[str, Any]:
    """Overrides from one text: a `field = value` on each line, or a JSON object. Empty lines and lines that begin with # are
    skipped. Raises OverrideError naming the line.
    """
    if text.lstrip().startswith("{"):
        try:
            table = _json(text)
        except ValueError as err:
            raise OverrideError(f'not a JSON object ({err}); write {{"base.num_iterations": 20}} or {EXAMPLE}') from err
        assert isinstance(table, dict)  # JSON that begins with a brace is an object
        return table
    found: dict[str, Any] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                found |= parse([line.strip()])
            except OverrideError as err:
                raise OverrideError(f"line {number}: {err}") from err
    return found


def _value(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    # Python reads NaN, Infinity and 1e999, but cannot send them to the API: JSON has finite numbers only.
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return value

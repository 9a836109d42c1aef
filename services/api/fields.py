"""Parameter types that several endpoints share. They refuse what the database could not take."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, JsonValue, StringConstraints

BIGINT = 2**63 - 1  # largest value of a Postgres bigint
MAX_DEPTH = 32  # levels of a nested JSON value

RunId = Annotated[str, Path(pattern=r"^r_[0-9a-f]{16}$", description="Id of the run, as answered when it was submitted.")]
CheckpointId = Annotated[
    str, Path(pattern=r"^c_[0-9a-f]{16}$", description="Id of the checkpoint, as in the list of a run's checkpoints.")
]
After = Annotated[int, Query(ge=0, le=BIGINT, description="Return only items with a greater id.")]
StageName = Annotated[
    str | None, Query(pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Return only this stage, such as base_train.")
]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./@-]{1,80}$")]


def storable(value: JsonValue) -> JsonValue:
    """Return the value if Postgres can store it as jsonb. Raises ValueError for what Python's JSON allows but jsonb does not."""
    _check(value, 0)
    return value


def _check(value: JsonValue, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("contains NaN or an infinity; use a finite number or null")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            _check(item, depth + 1)


def check_text(text: str) -> str:
    """Return the text if Postgres can store it. Raises ValueError."""
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("contains a NUL character or a lone surrogate, which cannot be stored; remove it")
    return text


Storable = Annotated[JsonValue, AfterValidator(storable)]
SearchText = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(check_text)]

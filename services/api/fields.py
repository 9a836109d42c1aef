"""Types that several nouns share: what a value may be before it comes near the database."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, JsonValue, StringConstraints

BIGINT = 2**63 - 1
MAX_DEPTH = 32

RunId = Annotated[str, Path(pattern=r"^r_[0-9a-f]{16}$", description="as answered when the run was submitted")]
CheckpointId = Annotated[str, Path(pattern=r"^c_[0-9a-f]{16}$", description="as listed among a run's checkpoints")]
After = Annotated[int, Query(ge=0, le=BIGINT, description="only what has a greater id")]
StageName = Annotated[str, Query(pattern=r"^[a-z][a-z0-9_]{0,40}$", description="only of this stage, as base_train")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./@-]{1,80}$")]


def storable(value: JsonValue) -> JsonValue:
    """The value, if Postgres can hold it as jsonb. Raises ValueError for what Python's JSON allows and jsonb does not."""
    _check(value, 0)
    return value


def _check(value: JsonValue, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds NaN or an infinity; use a finite number or null")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            _check(item, depth + 1)


def check_text(text: str) -> str:
    """The text, if Postgres can hold it. Raises ValueError."""
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds a NUL or a lone surrogate, which cannot be stored; remove it")
    return text


Storable = Annotated[JsonValue, AfterValidator(storable)]

"""Parameter types that several endpoints share. They refuse what the database could not take."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, JsonValue, StringConstraints

from controlplane import access
from services.api.auth import Caller
from services.api.database import Ledger

BIGINT = 2**63 - 1  # largest value of a Postgres bigint
MAX_DEPTH = 32  # levels of a nested JSON value

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


IdOrName = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(check_text)]


def _run(
    caller: Caller,
    ledger: Ledger,
    run_id: Annotated[
        IdOrName,
        Path(
            description="Id of the run, as answered when it was submitted; or its name, if no other run of the project has it."
        ),
    ],
) -> str:
    with ledger() as session:
        return access.run_id(session, caller.project, run_id)


def _checkpoint(
    caller: Caller,
    ledger: Ledger,
    checkpoint_id: Annotated[
        str, Path(pattern=r"^c_[0-9a-f]{16}$", description="Id of the checkpoint, as in the list of a run's checkpoints.")
    ],
) -> str:
    with ledger() as session:
        return access.checkpoint_id(session, caller.project, checkpoint_id)


def _sweep(
    caller: Caller,
    ledger: Ledger,
    sweep_id: Annotated[IdOrName, Path(description="Id of the sweep; or its name, if no other sweep of the project has it.")],
) -> str:
    with ledger() as session:
        return access.sweep_id(session, caller.project, sweep_id)


# The id of a run, checkpoint or sweep of the caller's project. Those of other projects are answered like unknown ones: 404.
RunId = Annotated[str, Depends(_run)]
SweepId = Annotated[str, Depends(_sweep)]
CheckpointId = Annotated[str, Depends(_checkpoint)]
Storable = Annotated[JsonValue, AfterValidator(storable)]
SearchText = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(check_text)]


def _check_moment_text(value: object) -> object:
    """A number would be read as a Unix time, which the schema does not promise."""
    if isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"\s*[+-]?[\d._]+\s*", value)):
        raise ValueError("must be a date and time with a time zone, such as 2030-01-31T12:00:00Z")
    return value


def _check_year(at: datetime) -> datetime:
    if not 2000 <= at.year < 9999:  # near the ends of the calendar a change of time zone leaves it
        raise ValueError("must be between the years 2000 and 9998")
    return at


Moment = Annotated[AwareDatetime, BeforeValidator(_check_moment_text), AfterValidator(_check_year)]

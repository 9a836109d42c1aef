"""Types of recipe fields, each bounded by what the value means. Imports no torch.

An upper bound is far beyond any sensible use and below what would overflow, exhaust memory or keep a plan busy for seconds.
Every bound is part of the JSON schema, so that the OpenAPI document shows it. So is the unit of a number, for forms.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

MAX_STEPS = 10**8  # the longest public runs have about 10**6
_CONTROL = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode categories without a glyph of their own
_JOINERS = "\u200c\u200d"  # part of how Persian and Indic scripts are written, and of emoji such as 👩‍🚀
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols that are drawn as nothing


def one_line(text: str) -> str:
    """Return the text if a person can read it on one line. Raises ValueError."""
    for place, character in enumerate(text):
        if unicodedata.category(character) in _CONTROL and not _joins(text, place):
            raise ValueError(f"has an invisible character, U+{ord(character):04X}, at position {place}; remove it")
    if text and not any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK for c in text):
        raise ValueError("has no visible character; write a name that people can read")
    return text


def _joins(text: str, place: int) -> bool:
    """Whether a joiner stands between two characters that it can join. Between Latin letters it would only be hidden."""
    around = text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
    return text[place] in _JOINERS and len(around) == 2 and not any(c.isascii() or c in _JOINERS for c in around)


def _every(steps: int) -> int:
    if steps == 0:
        raise ValueError("0 is not a number of steps; write -1 to turn it off, or a number of 1 or more")
    return steps


def _count(most: int, unit: str) -> Any:
    return Field(gt=0, le=most, json_schema_extra={"unit": unit})


_EVERY = {
    "anyOf": [{"const": -1, "type": "integer"}, {"type": "integer", "minimum": 1, "maximum": MAX_STEPS}],
    "unit": "steps",
}

Steps = Annotated[int, _count(MAX_STEPS, "steps")]  # optimizer steps
Every = Annotated[int, Field(ge=-1, le=MAX_STEPS), AfterValidator(_every), WithJsonSchema(_EVERY)]  # -1: never
Rows = Annotated[int, _count(10**9, "rows")]  # rows, examples, problems or questions of a data set
GeneratedRows = Annotated[int, _count(10**7, "rows")]  # each is held in memory
DeviceRows = Annotated[int, _count(65_536, "rows")]  # that one device processes at a time
Repeats = Annotated[int, _count(10_000, "times")]  # epochs, repetitions, samples of one question
Chars = Annotated[int, _count(10**13, "characters")]
CollectedChars = Annotated[int, _count(10**10, "characters")]  # held in memory
Tokens = Annotated[int, _count(10**12, "tokens")]  # of one evaluation
StepTokens = Annotated[int, Field(gt=0, le=2**32)]  # of one optimizer step
Length = Annotated[int, _count(2**20, "tokens")]  # tokens of a row or an answer
TopK = Annotated[int, Field(ge=0, le=2**20, json_schema_extra={"unit": "tokens"})]  # 0: all tokens
Shards = Annotated[int, _count(10**6, "shards")]
Connections = Annotated[int, _count(256, "connections")]
Temperature = Annotated[float, Field(ge=0.0, le=100.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Betas = tuple[Beta, Beta]
LearningRate = Annotated[float, Field(gt=0, le=100)]
WeightDecay = Annotated[float, Field(ge=0, le=100)]
Factor = Annotated[float, Field(gt=0, le=1000)]
Deviation = Annotated[float, Field(ge=0, le=100)]  # standard deviation
Scalar = Annotated[float, Field(ge=-1000, le=1000)]
PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(one_line)]  # PATH_MAX of Linux
PlaceText = Annotated[str, Field(max_length=4096), AfterValidator(one_line)]  # a folder, a URL or nothing
UrlText = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(one_line)]
Description = Annotated[str, Field(max_length=2000)]

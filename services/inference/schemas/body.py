"""The base of all request bodies, and the errors that name the parameter that is wrong."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Body(BaseModel):
    """Strict: `"5"` and `true` are no numbers. Neither are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def wrong(param: str, message: str) -> PydanticCustomError:
    """The error of a validator that looks at several fields. `param` is the one that the caller has to change."""
    return PydanticCustomError("wrong", "{message}", {"param": param, "message": message})


def unsupported(param: str, message: str) -> PydanticCustomError:
    """The error for a parameter of OpenAI's API that this server does not implement."""
    return PydanticCustomError("unsupported", "{message}", {"param": param, "message": message})

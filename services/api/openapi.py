"""The OpenAPI 3.1 document. It is FastAPI's, except that every error is a problem detail (RFC 9457)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.api.problems import Problem

# FastAPI declares these for its validation errors, which this service answers as problem details.
_FASTAPI_OWN = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Make the app serve the document of `build`."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = build(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def build(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document with `Problem` in place of FastAPI's own error models, schemas in alphabetical order."""
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    schemas: dict[str, Any] = schema["components"]["schemas"]
    for name in _FASTAPI_OWN:
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    return schema

"""The parameters that constrain an answer: OpenAI's `response_format`, and vLLM's names for the same and more."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from nanochat.grammar import Grammar, GrammarError
from services.inference.schemas.body import Body, wrong

Schema = dict[str, Any]
Choices = Annotated[list[str], Field(fail_fast=True)]


class JsonSchema(Body):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = Field(default=None, description="true: keywords that are not enforced are refused; else ignored")


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise wrong("json_schema", "json_schema belongs to type 'json_schema' and to no other type")
        return self


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`: exactly one of the fields."""

    json_: Schema | str | None = Field(default=None, alias="json", description="a JSON schema, as an object or as text")
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        given = [value for value in (self.json_, self.json_object, self.regex, self.choice) if value not in (None, False)]
        if len(given) != 1:
            raise wrong("", f"exactly one of json, json_object, regex and choice must be given, not {len(given)}")
        return self


class Structured(Body):
    """At most one of these may be given. `constraint` is the grammar, with the name of the parameter it comes from."""

    response_format: ResponseFormat | None = Field(default=None, description="text, any JSON object, or JSON of a schema")
    structured_outputs: StructuredOutputs | None = Field(default=None, description="one of json, json_object, regex, choice")
    guided_json: Schema | str | None = Field(default=None, description="older name of structured_outputs.json")
    guided_regex: str | None = Field(default=None, description="older name of structured_outputs.regex")
    guided_choice: Choices | None = Field(default=None, description="older name of structured_outputs.choice")

    @model_validator(mode="after")
    def _is_a_grammar(self) -> Self:
        _ = self.constraint
        return self

    @cached_property
    def constraint(self) -> tuple[str, Grammar] | None:
        asked = [(param, kind, value) for param, kind, value in self.constraints() if value not in (None, False)]
        if len(asked) > 1:
            raise wrong(asked[1][0], f"{asked[0][0]} constrains the answer already; give only one of them")
        for param, kind, value in asked:
            try:
                return param, value if isinstance(value, Grammar) else _grammar(kind, value)
            except GrammarError as err:
                raise wrong(param, str(err)) from err
        return None

    def constraints(self) -> list[tuple[str, str, Any]]:
        """Parameter, kind and value of everything that may constrain the answer."""
        outputs, prefix = self.structured_outputs, "structured_outputs"
        form = self.response_format
        return [
            ("response_format", "json_object", form is not None and form.type == "json_object"),
            ("response_format.json_schema", "format", form and form.json_schema),
            (f"{prefix}.json", "json", outputs and outputs.json_),
            (f"{prefix}.json_object", "json_object", outputs and outputs.json_object),
            (f"{prefix}.regex", "regex", outputs and outputs.regex),
            (f"{prefix}.choice", "choice", outputs and outputs.choice),
            ("guided_json", "json", self.guided_json),
            ("guided_regex", "regex", self.guided_regex),
            ("guided_choice", "choice", self.guided_choice),
        ]


def _grammar(kind: str, value: Any) -> Grammar:
    match kind:
        case "json_object":
            return Grammar.json_object()
        case "format":
            return Grammar.json_schema(value.schema_, strict=bool(value.strict))
        case "json":
            return Grammar.json_schema(_schema(value))
        case "regex":
            return Grammar.regex(value)
        case _:
            return Grammar.choice(value)


def _schema(value: Schema | str) -> Schema:
    if isinstance(value, dict):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as err:
        raise GrammarError(f"the schema is not valid JSON: {err}") from err
    if not isinstance(found, dict):
        raise GrammarError("the schema must be a JSON object")
    return found

"""A grammar as plain data, which can be pickled and sent to another process. It is compiled where answers are generated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from nanochat.tasks.calls import call_prefix

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

Kind = Literal["json_object", "json_schema", "regex", "choice", "call"]

MAX_CHARS = 100_000
MAX_DEPTH = 50  # of a schema; llguidance's parser of JSON ends at 128
MAX_CHOICES = 1000
# White space between the parts of a JSON text: one space, or a line break with an indentation. Without a bound a weak model
# writes white space until its tokens are used up.
WHITESPACE = r" |\n {0,32}"


class GrammarError(ValueError):
    """A grammar that cannot be used. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must look like. Make one by its class methods, which refuse what is wrong at first sight.

    - `json_object`: any JSON object.
    - `json_schema`: JSON that a schema (draft 2020-12) allows; properties in the order of the schema.
    - `regex`: text that a regular expression (Rust's syntax) matches from its first to its last character.
    - `choice`: one of several texts, which are in `text` as a JSON list.
    - `call`: the call of one of several functions, whose names and schemas of arguments are in `text`: `call_prefix` of its name,
      then the arguments as a JSON object, then `}`.

    With `strict` a schema may only have keywords that are enforced. Without it other keywords have no effect, and `oneOf` means
    `anyOf`.
    """

    kind: Kind
    text: str
    strict: bool = True

    @classmethod
    def json_object(cls) -> Grammar:
        return cls("json_object", '{"type":"object"}')

    @classmethod
    def json_schema(cls, schema: dict[str, Any], *, strict: bool = True) -> Grammar:
        _check(schema)
        return cls._short("json_schema", json.dumps(schema, ensure_ascii=False), strict)

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        if not pattern:
            raise GrammarError("the regular expression is empty")
        return cls._short("regex", pattern)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Grammar:
        if not texts or not all(texts):
            raise GrammarError("there must be at least one choice, and none may be empty")
        if len(texts) > MAX_CHOICES:
            raise GrammarError(f"there are {len(texts)} choices; at most {MAX_CHOICES} are possible")
        return cls._short("choice", json.dumps(list(texts), ensure_ascii=False))

    @classmethod
    def call(cls, functions: Mapping[str, dict[str, Any]], *, strict: bool = True) -> Grammar:
        """`functions`: the schema of the arguments by the function's name, of letters, digits, `_` and `-`."""
        for schema in functions.values():
            _check(schema)
        return cls._short("call", json.dumps(functions, ensure_ascii=False), strict)

    @classmethod
    def _short(cls, kind: Kind, text: str, strict: bool = True) -> Grammar:
        if len(text) > MAX_CHARS:
            raise GrammarError(f"it has {len(text)} characters; at most {MAX_CHARS} are possible")
        return cls(kind, text, strict)

    def source(self) -> str:
        """The grammar in llguidance's own language."""
        from llguidance import LLMatcher  # here, so that the engine runs without it where no answer is constrained

        if self.kind == "regex":
            return LLMatcher.grammar_from_regex(self.text)
        if self.kind == "choice":
            return LLMatcher.grammar_from_regex("|".join(map(_literally, json.loads(self.text))))
        if self.kind == "call":
            return LLMatcher.grammar_from_lark(self._calls())
        return LLMatcher.grammar_from_json_schema(self.text, overrides=self._options())

    def _options(self) -> JsonCompileOptions:
        return {"whitespace_pattern": WHITESPACE, "lenient": not self.strict}

    def _calls(self) -> str:
        functions = json.loads(self.text)
        rules = [f"start: {' | '.join(f'call{i}' for i in range(len(functions)))}"]
        for i, (name, schema) in enumerate(functions.items()):
            arguments = json.dumps({"x-guidance": self._options(), **schema})
            rules += [
                f"call{i}: {json.dumps(call_prefix(name))} arguments{i} {json.dumps('}')}",
                f"arguments{i}: %json {arguments}",
            ]
        return "\n".join(rules)


def explained(error: str) -> str:
    """llguidance's message in one line, without its picture of the place."""
    if found := re.search(r"^error: (.*)$", error, re.MULTILINE):
        return f"the regular expression is not valid: {found[1]}"
    if found := re.search(r"\(in regex\): (.*?)(; \w+ in regex .*)?$", error, re.MULTILINE):
        return f"the regular expression is not valid: {found[1]}"
    if found := re.search(r"Unimplemented keys: (\[.*?\])", error):
        return f"the schema uses keywords that are not supported: {', '.join(json.loads(found[1]))}"
    line = error.partition("\n")[0].rpartition("failed to compile JSON schema: ")[2]
    return "no text fits the grammar" if line == "NoExtensionBias" else f"it cannot be compiled: {line}"


def _check(schema: dict[str, Any]) -> None:
    if _depth(schema) > MAX_DEPTH:
        raise GrammarError(f"the schema is nested more than {MAX_DEPTH} levels deep")
    if "x-guidance" in schema:
        raise GrammarError("the schema's keyword 'x-guidance' is not supported; leave it out")


def _literally(text: str) -> str:
    """A regular expression that matches exactly this text."""
    return re.sub(r"[\\.+*?()|\[\]{}^$#&\-~]", r"\\\g<0>", text)


def _depth(value: Any) -> int:
    """How deeply objects and lists are nested. Goes level by level: recursion would end at Python's own limit."""
    depth, level = 0, [value]
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        level = [part for value in level for part in (value.values() if isinstance(value, dict) else value)]
    return depth

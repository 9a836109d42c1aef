"""`tools` and `tool_choice`. The models are trained for one tool, the calculator, which the engine itself runs.

A grammar can make any model write a call of a function that the client names. Whether to call one at all is a decision that the
models have not learned, so `auto` is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from nanochat.grammar import Grammar, GrammarError
from services.inference.schemas.body import Body, unsupported, wrong
from services.inference.schemas.structured import Structured

MAX_TOOLS = 32
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(Body):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="JSON schema of the arguments; null: no arguments")
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class FunctionOfChoice(Body):
    name: FunctionName


class NamedChoice(Body):
    type: Literal["function"]
    function: FunctionOfChoice


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")] | Annotated[NamedChoice, Tag("<function>")],
    Discriminator(lambda choice: "<word>" if isinstance(choice, str) else "<function>"),
]


class ToolParams(Structured):
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS, description="functions of the client")
    tool_choice: ToolChoice | None = Field(
        default=None, description="none, required, or one function; auto is refused if there are tools"
    )
    parallel_tool_calls: bool | None = Field(default=None, description="no effect: an answer has at most one call")

    @property
    def functions(self) -> list[Function]:
        """Those of which one must be called. Raises the error of a choice that cannot be made."""
        tools = {tool.function.name: tool.function for tool in self.tools or ()}
        if len(tools) < len(self.tools or ()):
            raise wrong("tools", "two tools have the same name")
        choice = self.tool_choice
        if isinstance(choice, NamedChoice):
            if choice.function.name not in tools:
                raise wrong("tool_choice", f"there is no tool {choice.function.name!r} in tools")
            return [tools[choice.function.name]]
        if choice == "required":
            if not tools:
                raise wrong("tool_choice", "tool_choice 'required' needs tools")
            return list(tools.values())
        if tools and choice != "none":
            raise unsupported(
                "tool_choice" if choice else "tools",
                "The models of this server are not trained to decide on calls of tools. Set 'tool_choice' to 'required' or to a"
                " function to have a call written, or to 'none'.",
            )
        return []

    def constraints(self) -> list[tuple[str, str, Any]]:
        return [("tool_choice", "call", self._call()), *super().constraints()]

    def _call(self) -> Grammar | None:
        functions = self.functions
        for function in functions:
            if (function.parameters or NO_ARGUMENTS).get("type") != "object":
                raise wrong("tools", f"the parameters of {function.name!r} must be a schema of type 'object'")
        try:
            schemas = {function.name: function.parameters or NO_ARGUMENTS for function in functions}
            return Grammar.call(schemas, strict=any(function.strict for function in functions)) if functions else None
        except GrammarError as err:
            raise wrong("tools", str(err)) from err

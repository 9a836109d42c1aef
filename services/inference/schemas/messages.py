"""The messages of a conversation as clients send them, and the turns that the model was trained on.

In training, user and assistant alternate, the user begins, and a system message is part of the first user turn: its text, a
blank line, the user's text. Other orders of roles are brought into that form (docs/api.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from nanochat.tasks.base import Message as Turn
from nanochat.tasks.calls import JOIN, call_text
from services.inference.schemas.body import Body, wrong


class Part(BaseModel):
    """A part of a content. Clients add fields such as `cache_control`, which have no effect."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _has_its_text(self) -> Self:
        if getattr(self, self.type) is None:
            raise wrong(self.type, f"a part of type {self.type!r} needs the field {self.type!r}")
        return self

    @property
    def content(self) -> str:
        return (self.text if self.type == "text" else self.refusal) or ""


# Discriminated, so that an error inside a part is not reported as "not a string". errors.py removes the tags from the path.
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[Part], Tag("<parts>"), Field(fail_fast=True)],
    Discriminator(lambda content: "<parts>" if isinstance(content, list) else "<text>"),
]

# Fields of an assistant's message that would change the prompt if this server could render them.
NOT_RENDERED = ("function_call", "audio")


class CalledFunction(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call in an earlier answer, which clients send back. It is rendered as the model wrote it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def text(self) -> str:
        return call_text(self.function.name, self.function.arguments)


class ChatMessage(BaseModel):
    """`developer` is the newer name of `system`. `tool` brings the result of a call, which the model reads as the user's.

    The content of an assistant's message may be null or absent.
    Clients send earlier answers back with the fields that their SDK adds: `name`, `annotations`, `reasoning_content`, our own
    `calculator`, and others. They are ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    tool_calls: list[ToolCall] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_rendered(cls, message: Any) -> Any:
        for name in NOT_RENDERED if isinstance(message, dict) else ():
            if message.get(name):
                raise wrong(name, f"the model cannot read {name} of earlier messages; send the text of the message only")
        return message

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.role != "assistant" and self.content is None:
            raise wrong("content", f"a message of role {self.role!r} needs a content: a text or a list of text parts")
        if self.role == "user" and not self.text:
            raise wrong("content", "the content of a user's message is empty")
        return self

    @property
    def text(self) -> str:
        content = self.content or ""
        said = content if isinstance(content, str) else "".join(part.content for part in content)
        calls = [call.text for call in self.tool_calls or ()] if self.role == "assistant" else []
        return JOIN.join(part for part in (said, *calls) if part)


class MessagesBody(Body):
    """A conversation, and how its end is rendered. Shared by chat completions and POST /tokenize."""

    # Only the first error is reported, and finding 100,000 of them takes half a second.
    messages: list[ChatMessage] = Field(min_length=1, fail_fast=True)
    add_generation_prompt: bool | None = Field(
        default=None,
        description="begin the assistant's turn after the messages; null: yes, unless continue_final_message is true",
    )
    continue_final_message: bool | None = Field(
        default=None, description="continue the last message, which is the assistant's, instead of beginning a turn"
    )

    @model_validator(mode="after")
    def _ends_well(self) -> Self:
        last = self.messages[-1].role
        if self.continue_final_message and self.add_generation_prompt:
            raise wrong("add_generation_prompt", "add_generation_prompt and continue_final_message exclude each other")
        if self.continue_final_message and last != "assistant":
            raise wrong(
                "continue_final_message", f"continue_final_message needs a last message of role 'assistant', not {last!r}"
            )
        if self.begins_turn and last == "assistant":
            raise wrong(
                "messages",
                "the last message is the assistant's, so there is nothing to answer; set continue_final_message to true to"
                " have it continued",
            )
        return self

    @property
    def chars(self) -> int:
        return sum(len(message.text) for message in self.messages)

    @property
    def begins_turn(self) -> bool:
        if self.add_generation_prompt is None:
            return not self.continue_final_message
        return self.add_generation_prompt


def turns(messages: Sequence[ChatMessage]) -> list[Turn]:
    """The messages as turns that alternate and begin with the user's.

    Consecutive messages of one side share a turn; a blank line separates them. The user's side includes system messages. A
    conversation that the assistant begins gets an empty user turn.
    """
    joined: list[Turn] = [
        {"role": role, "content": JOIN.join(message.text for message in group if message.text)}
        for role, group in groupby(messages, key=_side)
    ]
    return joined if joined[0]["role"] == "user" else [{"role": "user", "content": ""}, *joined]


def _side(message: ChatMessage) -> Literal["user", "assistant"]:
    return "assistant" if message.role == "assistant" else "user"

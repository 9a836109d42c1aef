"""The body of a chat completion request: the supported parameters, and those that are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from nanochat.tasks.base import Conversation

MAX_CHOICES = 8
MAX_STOPS = 4

# Parameters of OpenAI's API that are not implemented -> values that have no effect and are therefore accepted.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0, 0.0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "modalities": (None, ["text"]),
    "parallel_tool_calls": (None,),
    "prediction": (None,),
    "presence_penalty": (None, 0, 0.0),
    "reasoning_effort": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "tool_choice": (None, "none"),
    "tools": (None, []),
    "top_logprobs": (None,),
    "verbosity": (None,),
    "web_search_options": (None,),
}


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(Body):
    type: Literal["text"]
    text: str


# Discriminated, so that an error inside a part is not reported as "not a string". errors.py removes the tags from the path.
Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>")],
    Discriminator(lambda content: "<parts>" if isinstance(content, list) else "<text>"),
]


class Message(Body):
    role: Literal["system", "user", "assistant"]
    content: Content

    @model_validator(mode="before")
    @classmethod
    def _null_means_absent(cls, message: Any) -> Any:
        # Clients send earlier answers back unchanged, with `refusal: null` and with our own field `calculator`.
        if not isinstance(message, dict):
            return message
        return {k: v for k, v in message.items() if v is not None and k != "calculator"}

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Body):
    include_usage: bool = False


class ChatRequest(Body):
    """POST /v1/chat/completions. The defaults are OpenAI's. `top_k` (0: off) is an addition of this server."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = Field(default=None, description="id of a model, see GET /v1/models; null or `default`: the newest")
    temperature: float | None = Field(default=None, ge=0, le=2, description="null: 1; 0 always takes the likeliest token")
    top_p: float | None = Field(default=None, gt=0, le=1, description="null: 1")
    top_k: int | None = Field(default=None, ge=0, description="null or 0: off")
    max_tokens: int | None = Field(
        default=None, gt=0, description="longest answer, in tokens; null: up to the end of the context"
    )
    max_completion_tokens: int | None = Field(default=None, gt=0, description="newer name of max_tokens")
    seed: int | None = Field(default=None, description="seed of the sampling; null: a random one for each request")
    stop: str | list[str] | None = Field(default=None, description=f"up to {MAX_STOPS} texts that end the answer")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="identifies the end user for the caller; no effect on the answer")
    metadata: dict[str, str] | None = Field(default=None, description="notes of the caller; no effect on the answer")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        for param, neutral in UNSUPPORTED.items():
            if param in body and body[param] not in neutral:
                raise PydanticCustomError(
                    "unsupported", "This server does not implement '{param}'; leave it out.", {"param": param}
                )
        return {name: value for name, value in body.items() if name not in UNSUPPORTED}

    @model_validator(mode="after")
    def _fits_together(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ; give only one of them")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options needs stream: true")
        if len(self.stops) > MAX_STOPS or not all(self.stops):
            raise ValueError(f"stop takes up to {MAX_STOPS} texts, and none may be empty")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


def conversation(messages: list[Message]) -> Conversation:
    """The messages in the form that the tokenizer renders. Raises TurnError if the roles are in a wrong order.

    The first message may be a system message. Then user and assistant alternate, and the last message is the user's.
    """
    turns = messages[1:] if messages[0].role == "system" else messages
    first = len(messages) - len(turns)
    for i, message in enumerate(turns):
        expected = ("user", "assistant")[i % 2]
        if message.role != expected:
            raise TurnError(
                f"messages[{first + i}].role",
                f"expected {expected!r}, got {message.role!r}: after an optional system message, user and assistant alternate",
            )
    if not turns or turns[-1].role != "user":
        raise TurnError("messages", "the last message must be the user's")
    return {"messages": [{"role": m.role, "content": m.text} for m in messages]}


class TurnError(ValueError):
    def __init__(self, param: str, message: str):
        super().__init__(message)
        self.param = param

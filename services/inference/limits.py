"""What one request may ask for. The defaults are those of nanochat's own web server, where it has such a limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from services.inference.errors import ApiError
from services.inference.schemas.messages import ChatMessage
from services.inference.schemas.sampling import SamplingParams

Most = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """`NANOCHAT_LIMITS__MESSAGES=100` or `--limits.messages 100`, and so on."""

    model_config = ConfigDict(frozen=True)

    messages: Most = Field(default=500, description="most messages in a conversation")
    message_chars: Most = Field(default=8_000, description="most characters in one message")
    total_chars: Most = Field(default=32_000, description="most characters in all messages or prompts of a request")
    temperature: float = Field(default=2.0, ge=0, description="highest temperature")
    top_k: Most = Field(default=200, description="largest top_k")
    max_tokens: Most = Field(default=4_096, description="longest answer in tokens")
    n: Most = Field(default=8, description="most answers to one prompt")
    prompts: Most = Field(default=32, description="most prompts in a text completion")

    def check_sampling(self, params: SamplingParams) -> None:
        """Raises ApiError 400."""
        _within("temperature", params.temperature, self.temperature)
        _within("top_k", params.top_k, self.top_k)
        for name, length in params.lengths.items():
            _within(name, length, self.max_tokens)
        _within("n", params.n, self.n)

    def check_messages(self, messages: list[ChatMessage]) -> None:
        """Raises ApiError 400."""
        if len(messages) > self.messages:
            raise _beyond("messages", f"at most {self.messages:,} messages are allowed on this server, not {len(messages):,}")
        lengths = [len(message.text) for message in messages]
        for i, length in enumerate(lengths):
            if length > self.message_chars:
                raise _beyond(
                    f"messages[{i}].content",
                    f"a message may have {self.message_chars:,} characters on this server; this one has {length:,}",
                )
        self.check_chars("messages", sum(lengths))

    def check_chars(self, param: str, total: int) -> None:
        """Raises ApiError 400."""
        if total > self.total_chars:
            raise _beyond(param, f"at most {self.total_chars:,} characters are allowed on this server, not {total:,}")


def _within(param: str, value: float | None, most: float) -> None:
    if value is not None and value > most:
        raise _beyond(param, f"at most {most:g} is allowed on this server, not {value:g}")


def _beyond(param: str, message: str) -> ApiError:
    return ApiError(400, f"{param}: {message}.", param=param, code="invalid_value")

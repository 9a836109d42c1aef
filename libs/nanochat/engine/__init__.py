"""Text generation by continuous batching: a pool of KV blocks, a scheduler, a sampler, and a calculator for tool calls."""

from typing import TYPE_CHECKING, Any

from nanochat.engine.request import Output, PromptTooLong, Request, Sampling

if TYPE_CHECKING:
    from nanochat.engine.engine import Engine

__all__ = ["Engine", "Output", "PromptTooLong", "Request", "Sampling"]


def __getattr__(name: str) -> Any:
    # A server uses the records above without torch. The engine, which needs it, is imported with its first use.
    if name == "Engine":
        from nanochat.engine.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

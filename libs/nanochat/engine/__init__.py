"""Text generation by continuous batching: a pool of KV blocks, a scheduler, a sampler, and a calculator for tool calls."""

from nanochat.engine.engine import Engine
from nanochat.engine.request import Output, PromptTooLong, Request, Sampling

__all__ = ["Engine", "Output", "PromptTooLong", "Request", "Sampling"]

"""Generation by continuous batching: a pool of KV blocks, a scheduler, a sampler, and the calculator in the loop."""

from nanochat.engine.engine import Engine
from nanochat.engine.request import Output, PromptTooLong, Request, Sampling

__all__ = ["Engine", "Output", "PromptTooLong", "Request", "Sampling"]

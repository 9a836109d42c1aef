"""Text generation: a KV cache, a sampler with a random stream for each sample, a calculator, and the engine that uses them."""

from nanochat.engine.engine import Engine, PromptTooLong

__all__ = ["Engine", "PromptTooLong"]

"""Generation: a KV cache, a sampler with one random stream a row, a calculator, and the engine that joins them."""

from nanochat.engine.engine import Engine, PromptTooLong

__all__ = ["Engine", "PromptTooLong"]

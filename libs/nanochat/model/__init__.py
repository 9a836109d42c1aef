"""The transformer, free of distribution, precision and compilation: those are applied from outside."""

from nanochat.config.shape import GPTConfig
from nanochat.model.gpt import GPT
from nanochat.model.init import init_weights

__all__ = ["GPT", "GPTConfig", "init_weights"]

"""The transformer. No distribution, precision or compilation here: those are applied from outside."""

from nanochat.model.gpt import GPT
from nanochat.shape import GPTConfig

__all__ = ["GPT", "GPTConfig"]

"""Let a base model continue seven prompts. They are the same at every step of every run, so that runs can be compared."""

from __future__ import annotations

from nanochat.engine import Engine, Sampling
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer

# In this order: a fact, a symbol, a step of reasoning, a word, a list, an opinion, an equation.
PROMPTS = (
    "The city that is the capital of France is called",
    "In chemistry, the symbol for gold is",
    "Today is the day after Friday, so tomorrow will be",
    "The word that means the opposite of hot is",
    "Seen from the sun outwards, the planets are",
    "Of all the colors, the one I like best is",
    "We know that 5x + 3 = 13. Therefore x =",
)
MAX_TOKENS = 16


def complete(model: GPT, tokenizer: Tokenizer) -> list[tuple[str, str]]:
    """Return (prompt, greedy continuation of at most 16 tokens) for each of `PROMPTS`."""
    engine = Engine(model, tokenizer, max_rows=len(PROMPTS), cache_tokens=model.config.sequence_len, graphs=False)
    greedy = Sampling(temperature=0)
    requests = [engine.add([tokenizer.bos, *tokenizer.encode(prompt)], greedy, max_tokens=MAX_TOKENS) for prompt in PROMPTS]
    for _ in engine.finished():
        pass
    return [(prompt, tokenizer.decode(request.rows[0].made)) for prompt, request in zip(PROMPTS, requests, strict=True)]

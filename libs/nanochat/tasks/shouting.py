"""Writing a word in capital letters."""

from __future__ import annotations

import random

from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tasks.generated import GeneratedTask, casually, draw_word, quoted

PHRASINGS = ("Shout {word}.", "Write {word} in capital letters.", "How do you shout {word}?", "Say {word} loudly.")


class Shouting(GeneratedTask):
    """A test problem is a word in a phrasing in which training does not show that word."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        word = draw_word(rng, self.source.words)
        question = casually(rng, rng.choice(PHRASINGS).format(word=quoted(rng, word)))
        return question, {"messages": user_and_assistant(question, word.upper())}

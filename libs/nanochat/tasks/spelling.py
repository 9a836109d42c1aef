"""Spelling: name the letters of a word one by one."""

from __future__ import annotations

import random

from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tasks.generated import GeneratedTask, casually, draw_word, quoted

PHRASINGS = (
    "Spell {word}.",
    "Spell the word {word}.",
    "Please spell {word}.",
    "How do you spell {word}?",
    "How is {word} spelled?",
    "Can you spell {word}?",
    "Can you spell the word {word}?",
    "Spell {word} for me.",
    "What are the letters of {word}?",
    "Write {word} letter by letter.",
)


class Spelling(GeneratedTask):
    """A test problem is a word that no training question about words contains."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        word = draw_word(rng, self.source.words)
        question = casually(rng, rng.choice(PHRASINGS).format(word=quoted(rng, word)))
        return word, {"messages": user_and_assistant(question, spelled(word))}


def spelled(word: str) -> str:
    """`word:w,o,r,d`."""
    return f"{word}:{','.join(word)}"

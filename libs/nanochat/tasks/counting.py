"""Letter counting: count a letter in a word letter by letter, then check with the Python tool."""

from __future__ import annotations

import random
import string

from nanochat.tasks.base import Conversation, Part, user_and_assistant
from nanochat.tasks.generated import GeneratedTask, casually, draw_word, quoted
from nanochat.tasks.spelling import spelled

PHRASINGS = (
    "How many {letter} are in {word}?",
    "How many {letter} are there in {word}?",
    "How many letters {letter} are in the word {word}?",
    "How many times does {letter} occur in {word}?",
    "How many times does the letter {letter} appear in {word}?",
    "How many {letter} does {word} have?",
    "Count the {letter} in {word}.",
    "Count the letter {letter} in the word {word}.",
    "How often is {letter} in {word}?",
    "In {word}, how many {letter} are there?",
    "Tell me how many {letter} the word {word} has.",
)
ABSENT = 0.1  # share of questions about a letter drawn from the whole alphabet, which the word may lack


class Counting(GeneratedTask):
    """A test problem is about a word that no training question about words contains."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        word = draw_word(rng, self.source.words)
        letter = rng.choice(string.ascii_lowercase if rng.random() < ABSENT else word)
        question = casually(rng, rng.choice(PHRASINGS).format(letter=quoted(rng, letter), word=quoted(rng, word)))
        return word, {"messages": user_and_assistant(question, worked(word, letter))}


def worked(word: str, letter: str) -> list[Part]:
    """The answer step by step. Without spaces between number, colon and letter, each of them is one token."""
    lines = [spelled(word), ""]
    count = 0
    for position, char in enumerate(word, start=1):
        count += char == letter
        lines.append(f"{position}:{char}" + (f" ={count}" if char == letter else ""))
    lines += ["", f"That is {count}. Python says "]
    return [
        {"type": "text", "text": "\n".join(lines)},
        {"type": "python", "text": f"'{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": f"\n#### {count}"},
    ]

"""SpellingBee and SimpleSpelling of nanochat's speedrun: the same problems, in sentences of our own.

Row `i` of the training split is drawn with the seed `i`, row `i` of the tests with 10,000,000 + `i`, and the draws come in
nanochat's order. So the word, the letter, the language of the question and its quotes are those of nanochat's row, given the same
word list (`data.words`). Only our wording of question and answer differs. nanochat's code of November 2025 seeded its tests with
-i, which for Python's generator is i: every test row was a training row. It has had the seeds above since 2025-12-08.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation, Part, user_and_assistant
from nanochat.tasks.generated import GeneratedTask
from nanochat.tasks.source import read_word_list
from nanochat.tasks.spelling import spelled

TEST_SEED = 10_000_000
HELD = 1000  # test rows of each task whose words are never trained on: 0.5 % of a list of 370,000 words
PRESENT = 0.9  # share of questions about a letter of the word; the others are about any letter

# 30 English questions, 4 Spanish, 4 Chinese, 4 Korean, 3 French, 3 German and 3 Japanese ones, as many as nanochat has.
QUESTIONS = (
    "How many {letter} are in {word}",
    "How many {letter} are there in {word}",
    "How many letters {letter} are in the word {word}",
    "How many times does {letter} occur in {word}",
    "How many times does the letter {letter} appear in {word}",
    "How many times do you see {letter} in {word}",
    "How many of the letters of {word} are {letter}",
    "How many {letter} does the word {word} have",
    "How many {letter} do I need to write {word}",
    "How often is {letter} in {word}",
    "How often does {letter} come up in {word}",
    "How often do we write {letter} in the word {word}",
    "Count the letter {letter} in the word {word}",
    "Count every {letter} in {word}",
    "Count {letter} in {word}",
    "Please count the {letter} of {word}",
    "Can you count how often {letter} is in {word}",
    "Could you tell me how many {letter} are in {word}",
    "Tell me how many {letter} the word {word} has",
    "Tell me how often {word} has the letter {letter}",
    "In {word}, how many {letter} are there",
    "In the word {word}, how often do we find {letter}",
    "Look at the word {word} and count {letter}",
    "Look for {letter} in {word} and say how many there are",
    "Say how many {letter} you find in {word}",
    "What number of {letter} is in {word}",
    "What is the number of times that {letter} is in {word}",
    "The word {word} has how many {letter}",
    "I want to know how many {letter} {word} has",
    "Work out how many {letter} are in {word}",
    "¿Cuántas letras {letter} hay en la palabra {word}?",
    "¿Cuántas veces está {letter} en {word}?",
    "¿Cuántas {letter} lleva {word}?",
    "Di cuántas {letter} tiene la palabra {word}",
    "单词{word}里有几个字母{letter}",
    "请数一数{word}有多少个{letter}",
    "{letter}在{word}里出现几次",
    "{word}含有多少个字母{letter}",
    "{word}에는 {letter}가 몇 번 있나요",
    "단어 {word}에서 {letter}를 세어 주세요",
    "{word} 안에 {letter}는 모두 몇 개인가요",
    "{word}를 쓸 때 {letter}는 몇 번 들어가나요",
    "Combien de lettres {letter} y a-t-il dans le mot {word}",
    "Combien de fois trouve-t-on {letter} dans {word}",
    "Dis-moi combien de {letter} contient {word}",
    "Wie viele Buchstaben {letter} hat das Wort {word}",
    "Wie oft steht {letter} in {word}",
    "Sag mir, wie viele {letter} in {word} vorkommen",
    "単語{word}には{letter}がいくつありますか",
    "{word}の中の{letter}を数えてください",
    "{letter}は{word}に何回ありますか",
)


class _Seeded(GeneratedTask):
    """The words of the first test rows of both tasks are held out; a training row with one of them is drawn again."""

    remedy = "a longer word list as data.words"

    def seed(self, index: int) -> int:
        return index if self.split == "train" else TEST_SEED + index

    def owns(self, key: str) -> bool:
        return (key in self.lists.held) == (self.split == "test")

    @cached_property
    def lists(self) -> Lists:
        file = self.source.word_list_file
        if file is None or not file.is_file():
            raise StageError(
                "there is no word list", code="no_words", hint="set data.words, or use spelling and counting instead"
            )
        return _lists(file, file.stat().st_mtime_ns)


class SpellingBee(_Seeded):
    """How often a letter is in a word: spelled, counted by hand, and checked with Python."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        word = rng.choice(self.lists.words)
        letter = rng.choice(word) if rng.random() < PRESENT else rng.choice(string.ascii_lowercase)
        question = rng.choice(QUESTIONS)
        if rng.random() < 0.3:
            question = question.lower()
        quotes = rng.choice(("", "'", '"')), rng.choice(("", "'", '"'))
        quoted = [f"{quote}{text}{quote}" for quote, text in zip(quotes, (letter, word), strict=True)]
        question = question.format(letter=quoted[0], word=quoted[1]) + ("?" if rng.random() < 0.5 else "")
        return word, {"messages": user_and_assistant(question, worked(word, letter))}


class SimpleSpelling(_Seeded):
    """A word, letter by letter. The words come in another order, so that the rows are about other words than SpellingBee's."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        word = rng.choice(self.lists.shuffled)
        return word, {"messages": user_and_assistant(f"Spell the word: {word}", spelled(word))}


def worked(word: str, letter: str) -> list[Part]:
    """The answer step by step. Without a space between number, colon and letter, each of them is a token of its own."""
    lines = [f"The question is how often '{letter}' is in the word '{word}'. I count by hand first.", ""]
    lines += ["The letters of the word:", spelled(word), "", f"Now I go through them and look for '{letter}':"]
    count = 0
    for position, char in enumerate(word, start=1):
        count += char == letter
        lines.append(f"{position}:{char}" + (f" hit! count={count}" if char == letter else ""))
    return [
        {"type": "text", "text": "\n".join([*lines, "", f"That makes {count}."])},
        {"type": "text", "text": "\n\nI check it with Python:\n\n"},
        {"type": "python", "text": f"'{word}'.count('{letter}')"},
        {"type": "python_output", "text": str(count)},
        {"type": "text", "text": f"\n\nPython counts {count}.\n\nThe answer is:\n\n#### {count}"},
    ]


@dataclass(frozen=True, slots=True)
class Lists:
    """The words of a file, the same words in SimpleSpelling's order, and those that are held out."""

    words: tuple[str, ...]
    shuffled: tuple[str, ...]
    held: frozenset[str]

    @classmethod
    def of(cls, words: tuple[str, ...]) -> Lists:
        order = list(words)
        random.Random(42).shuffle(order)
        # Of a short list fewer test rows count, so that most of it is left to train on.
        rows = max(1, min(HELD, len(words) // 16))
        held = frozenset(random.Random(TEST_SEED + row).choice(words) for words in (words, order) for row in range(rows))
        return cls(words, tuple(order), held)


@lru_cache(maxsize=2)
def _lists(file: Path, changed: int) -> Lists:
    """The lists of a file that was changed at this time: many tasks have the same, and to make them takes half a second."""
    return Lists.of(read_word_list(file))

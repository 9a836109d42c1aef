"""Conversations about topics, each with many questions and a few answers. One question in eight of each topic is for tests."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nanochat.tasks.base import Message
from nanochat.tasks.generated import TEST_SHARE, bare, casually, digest_of


@dataclass(frozen=True, slots=True)
class Topic:
    asked: tuple[str, ...]
    answered: tuple[str, ...]


@dataclass(frozen=True)
class Dialogues:
    """Draws conversations: sometimes an opening topic, then questions, sometimes a closing topic.

    A question is held out by what it asks, whatever comes before it, its case and its marks. `openers` may come before the first
    question and `links` before a later one; both are lists to choose from.
    """

    topics: Mapping[str, Topic]
    opening: Sequence[str]
    closing: Sequence[str]
    openers: Sequence[str] = ("",)
    links: Sequence[str] = ("",)
    turns: Sequence[int] = (1, 1, 1, 2)  # questions between opening and closing
    _asked: dict[tuple[str, bool], list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        held = held_out(self.topics)
        for name, topic in self.topics.items():
            for test in (False, True):
                self._asked[name, test] = [q for q in topic.asked if (bare(q) in held) == test]

    def middle(self, *, test: bool) -> list[str]:
        """The topics between opening and closing that have a question in a split."""
        return [name for name in self.topics if name not in (*self.opening, *self.closing) and self._asked[name, test]]

    def draw(self, rng: random.Random, *, test: bool) -> list[Message]:
        """One conversation with the questions of a split."""
        middle = self.middle(test=test)
        topics = rng.sample(middle, min(rng.choice(self.turns), len(middle)))
        if rng.random() < 0.25:
            topics = [rng.choice(self.opening), *topics]
        elif rng.random() < 0.1:
            topics = [rng.choice(self.opening)]
        if rng.random() < 0.2:
            topics = [*topics, rng.choice(self.closing)]
        messages: list[Message] = []
        for position, name in enumerate(topics):
            question = rng.choice(self._asked[name, test])
            if name in middle:
                question = self._led(rng, question, first=position == 0)
            else:
                question += rng.choice(("", ".", "!"))
            messages.append({"role": "user", "content": casually(rng, question)})
            messages.append({"role": "assistant", "content": rng.choice(self.topics[name].answered)})
        return messages

    def _led(self, rng: random.Random, question: str, *, first: bool) -> str:
        lead = rng.choice(self.openers if first else self.links)
        joined = lead and not lead.rstrip().endswith((".", "!", "?"))  # "And who are you?"
        return lead + (question[0].lower() + question[1:] if joined and not question.startswith("I ") else question)


def held_out(topics: Mapping[str, Topic]) -> frozenset[str]:
    """The questions for tests, bare. A question that several topics have belongs to one split all the same."""
    held: set[str] = set()
    seen: set[str] = set()
    for topic in topics.values():
        asked = sorted({bare(question) for question in topic.asked}, key=digest_of)
        new = [question for question in asked if question not in seen]
        if len(asked) > 1:
            held.update(new[: max(1, len(asked) // TEST_SHARE)])
        seen.update(asked)
    return frozenset(held)

"""Conversations with a persona, from its name and a file of facts. Templates and chance write them: no network, no other model.

A question in another wording is another question, so one question in eight of each topic is held out and never trained on.
A fact with one question only (`Q:` and `A:`) is trained on and never held out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from nanochat.chats.persona_topics import ABOUT, GREETINGS, KNOWN, LINKS, NAME, OPENERS, OTHER
from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.dialogue import Dialogues, Topic
from nanochat.tasks.generated import bare
from nanochat.tasks.identity import TOPICS

# Of the conversations that every model of ours learns: those that hold for a persona as well.
SHARED = ("what", "work", "wrong", "internet", "memory", "feel", "thanks", "bye")
MOST_FACTS = 1000
TRIES = 50  # draws for each new conversation

_PAIR = re.compile(r"(?:[-*+]\s+)?\**([^:*]{1,40}?)\**\s*:\**\s+(.+)")
_MARKS = re.compile(r"^(?:[-*+]|\d+\.)\s+")


@dataclass(frozen=True, slots=True)
class Facts:
    """`named` are lines of `key: value`, `asked` questions with their answers, `said` all other lines, as sentences."""

    named: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, (*self.named.values(), *self.asked.values(), self.said)))


def read_facts(text: str) -> Facts:
    """The facts of a Markdown text, one on each line; headings and blank lines are left out. Raises StageError naming the line."""
    facts, question = Facts(), None
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(("#", "<!--", "---")):
            continue
        pair = _PAIR.fullmatch(line)
        key = pair[1].strip().casefold() if pair else ""
        if question is not None and key not in ("a", "answer"):
            raise _wrong(
                number, f"the question {question!r} before it has no answer", "write A: and the answer on the next line"
            )
        if not pair:
            facts.said.append(_sentence(_MARKS.sub("", line)))
        elif key in ("q", "question"):
            question = pair[2].strip()
        elif key in ("a", "answer"):
            if question is None:
                raise _wrong(number, "an answer without a question", "write Q: and the question on the line before it")
            facts.asked.setdefault(question, []).append(_sentence(pair[2]))
            question = None
        else:
            facts.named.setdefault(key, []).append(pair[2].strip().rstrip("."))
    if question is not None:
        raise _wrong(number, f"the question {question!r} has no answer", "write A: and the answer on the next line")
    if not 0 < len(facts) <= MOST_FACTS:
        raise StageError(
            f"there are {len(facts):,} facts; there must be 1 to {MOST_FACTS:,}",
            code="bad_facts",
            hint="write one fact on each line, such as `- maker: the robotics club` or `I like trains.`",
        )
    return facts


def topics(name: str, facts: Facts) -> dict[str, Topic]:
    """Everything that people can ask the persona."""
    found = {**GREETINGS, **NAME}
    found |= {key: topic for key, topic in TOPICS.items() if key in SHARED}
    for key, values in facts.named.items():
        topic = next((topic for names, topic in KNOWN if key in names), OTHER)
        found[f"fact {key}"] = _with(topic, key=key, value=" and ".join(values))
    for question, answers in facts.asked.items():
        found[f"asked {question}"] = Topic((question,), tuple(answers))
    if facts.said:
        starts = ("I am {name}. ", "", "")
        found["about"] = Topic(ABOUT, tuple(start + said for said in facts.said for start in starts))
    return {key: _with(topic, name=name) for key, topic in found.items()}


class Persona:
    """Draws conversations with a persona. The same seed gives the same ones."""

    def __init__(self, name: str, facts: Facts):
        every = topics(name, facts)
        self._dialogues = Dialogues(
            every,
            opening=("hello",) * len(GREETINGS) + tuple(GREETINGS)[1:],  # half of the greetings are English
            closing=("thanks", "bye"),
            openers=tuple(opener.replace("{name}", name) for opener in OPENERS),
            links=LINKS,
            turns=(1, 1, 2, 2, 3),
        )

    def conversations(self, rows: int, seed: int, *, test: bool) -> list[Conversation]:
        """At most `rows` different conversations; fewer if the facts do not give more."""
        rng = random.Random(f"persona/{seed}/{test}")
        found: dict[str, Conversation] = {}
        for _ in range(rows * TRIES):
            if len(found) == rows:
                break
            messages = self._dialogues.draw(rng, test=test)
            found.setdefault("/".join(str(m["content"]) for m in messages), {"messages": messages})
        return list(found.values())


def first_questions(conversations: list[Conversation]) -> int:
    """How many different first questions there are, whatever their case and marks."""
    return len({bare(str(conversation["messages"][0]["content"])) for conversation in conversations})


def _with(topic: Topic, **parts: str) -> Topic:
    return Topic(tuple(_filled(topic.asked, parts)), tuple(_filled(topic.answered, parts)))


def _filled(texts: tuple[str, ...], parts: dict[str, str]) -> Iterator[str]:
    for text in texts:
        filled = text
        for key, value in parts.items():
            filled = filled.replace(f"{{{key}}}", value)
        yield filled[0].upper() + filled[1:] if text.startswith("{value}") else filled


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?", "。", "…")) else f"{text}."


def _wrong(number: int, problem: str, hint: str) -> StageError:
    return StageError(f"line {number} of the facts: {problem}", code="bad_facts", hint=hint)

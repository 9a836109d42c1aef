"""Sums, differences and products of small numbers through the calculator tool."""

from __future__ import annotations

import random

from nanochat.tasks.base import Conversation, Part, user_and_assistant
from nanochat.tasks.generated import GeneratedTask, casually

LARGEST = {"+": 99, "-": 99, "*": 12}  # largest operand of each operator; products stay within the multiplication table
SPOKEN = {"+": "plus", "-": "minus", "*": "times"}
PHRASINGS = (
    "What is {a} {op} {b}?",
    "What is {a}{op}{b}?",
    "What is {a} {spoken} {b}?",
    "Compute {a} {op} {b}.",
    "How much is {a} {op} {b}?",
    "How much is {a} {spoken} {b}?",
    "{a} {op} {b} = ?",
    "{a} {op} {b}",
    "{a}{op}{b}",
    "{a} {spoken} {b}",
    "Calculate {a} {op} {b}.",
    "Please work out {a} {op} {b}.",
)


class Sums(GeneratedTask):
    """A test problem is an expression that training does not contain in any phrasing."""

    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        op = rng.choice(tuple(LARGEST))
        a, b = rng.randint(0, LARGEST[op]), rng.randint(0, LARGEST[op])
        if op == "-" and a < b:
            a, b = b, a
        question = casually(rng, rng.choice(PHRASINGS).format(a=a, b=b, op=op, spoken=SPOKEN[op]))
        return f"{a}{op}{b}", {"messages": user_and_assistant(question, worked(a, op, b))}


def worked(a: int, op: str, b: int) -> list[Part]:
    """The answer: the tool call, its output and the final line."""
    result = str({"+": a + b, "-": a - b, "*": a * b}[op])
    return [
        {"type": "python", "text": f"{a}{op}{b}"},
        {"type": "python_output", "text": result},
        {"type": "text", "text": f"The answer is {result}.\n#### {result}"},
    ]

"""GSM8K: grade-school maths word problems whose solutions call a calculator (Cobbe et al. 2021)."""

from __future__ import annotations

import re
from typing import Any

from nanochat.tasks.base import Conversation, Part, user_and_assistant
from nanochat.tasks.dataset import DatasetTask

_CALL = re.compile(r"<<([^>]*)>>")


class Gsm8k(DatasetTask):
    def from_row(self, row: Any) -> Conversation:
        return {"messages": user_and_assistant(row["question"], solution_parts(row["answer"]))}


def solution_parts(answer: str) -> list[Part]:
    """Turn each `<<expr=result>>` into a tool call and its output, split at the last `=`; everything else stays text."""
    parts: list[Part] = []
    for i, piece in enumerate(_CALL.split(answer)):
        if i % 2 == 0:
            parts += [{"type": "text", "text": piece}] if piece else []
        else:
            expression, _, result = piece.rpartition("=")
            parts += [{"type": "python", "text": expression}, {"type": "python_output", "text": result}]
    return parts

"""ARC: grade-school science questions with three to five choices (Clark et al. 2018)."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation, multiple_choice, user_and_assistant
from nanochat.tasks.dataset import DatasetTask


class Arc(DatasetTask):
    """The letters are the row's own labels: mostly A to D, in some rows 1 to 4."""

    def from_row(self, row: Any) -> Conversation:
        letters = row["choices"]["label"]
        question = multiple_choice(row["question"], row["choices"]["text"], letters)
        return {"messages": user_and_assistant(question, row["answerKey"]), "letters": letters}

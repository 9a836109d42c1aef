"""MMLU: multiple choice over 57 subjects (Hendrycks et al. 2021)."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import LETTERS, Conversation, multiple_choice, user_and_assistant
from nanochat.tasks.dataset import DatasetTask


class Mmlu(DatasetTask):
    def from_row(self, row: Any) -> Conversation:
        row = row.get("train", row)  # rows of auxiliary_train are wrapped in one more object
        letters = list(LETTERS[: len(row["choices"])])
        return {
            "messages": user_and_assistant(multiple_choice(row["question"], row["choices"], letters), letters[row["answer"]]),
            "letters": letters,
            "subject": row.get("subject") or "",
        }

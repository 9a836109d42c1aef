"""HumanEval: 164 Python functions to complete, judged by running their tests (Chen et al. 2021)."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tasks.dataset import DatasetTask


class HumanEval(DatasetTask):
    def from_row(self, row: Any) -> Conversation:
        return {
            "messages": user_and_assistant(row["prompt"], f"{row['prompt']}\n{row['canonical_solution']}"),
            "entry_point": row["entry_point"],
            "test": row["test"],
        }

"""An evaluation of one's own: name the capital of a country. The answer may be a whole sentence."""

from __future__ import annotations

from nanochat.tasks.base import Conversation, Task, reference, user_and_assistant
from nanochat.tasks.source import TaskSource

CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Kenya": "Nairobi", "Peru": "Lima"}


class Capitals(Task):
    """`source` is the run's task data, which this task does not need."""

    name = "capitals"

    def __init__(self, source: TaskSource):
        self._rows = list(CAPITALS.items())

    def __len__(self) -> int:
        return len(self._rows)

    def conversation(self, index: int) -> Conversation:
        country, capital = self._rows[index]
        return {"messages": user_and_assistant(f"What is the capital of {country}?", capital)}

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        return reference(conversation).lower() in completion.lower()

"""Tasks of the catalogue: name, kind of evaluation and judge follow from the task's row in `catalog.TASKS`."""

from __future__ import annotations

from nanochat.tasks.base import Conversation, EvalType, Task
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.judge import JUDGES


class CatalogTask(Task):
    """A task with a row in the catalogue."""

    def __init__(self, definition: TaskDef):
        self.definition = definition
        self.name, self.baseline = definition.name, definition.baseline
        self.eval_type: EvalType = "categorical" if definition.judge == "letter" else "generative"

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion` is right by the task's judge. Raises TypeError on tasks that have none."""
        if self.definition.judge is None:
            return super().evaluate(conversation, completion)
        return JUDGES[self.definition.judge](conversation, completion)

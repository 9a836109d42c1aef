"""HumanEval: 164 Python functions to complete, judged by running their tests (Chen et al. 2021)."""

from __future__ import annotations

import re
from typing import Any

from nanochat.tasks import sandbox
from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tasks.dataset import DatasetTask

_FENCE = re.compile(r"```(?:python)?[ \t]*\n(.*?)```", re.DOTALL)


class HumanEval(DatasetTask):
    name = "humaneval"

    def from_row(self, row: Any) -> Conversation:
        return {
            "messages": user_and_assistant(row["prompt"], f"{row['prompt']}\n{row['canonical_solution']}"),
            "entry_point": row["entry_point"],
            "test": row["test"],
        }

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the tests pass in the sandbox, with the prompt's imports before the completion's code."""
        prompt = conversation["messages"][0]["content"]
        assert isinstance(prompt, str)
        program = [
            leading_imports(prompt),
            code_in(completion),
            conversation["test"],
            f"check({conversation['entry_point']})",
        ]
        return sandbox.run("\n\n".join(program)).success


def leading_imports(prompt: str) -> str:
    """The import lines at the top of a prompt."""
    imports: list[str] = []
    for line in prompt.split("\n"):
        if line.startswith(("import ", "from ")):
            imports.append(line)
        elif line.strip() and not line.startswith("#"):
            break
    return "\n".join(imports)


def code_in(completion: str) -> str:
    """The first fenced code block, else the whole completion."""
    match = _FENCE.search(completion)
    return match[1].rstrip() if match else completion

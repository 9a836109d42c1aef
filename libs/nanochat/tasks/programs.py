"""Judging a Python function that a model wrote: run the problem's unit tests on it in the sandbox."""

from __future__ import annotations

import re

from nanochat.tasks import sandbox
from nanochat.tasks.base import Conversation

_FENCE = re.compile(r"```(?:python)?[ \t]*\n(.*?)```", re.DOTALL)


def passes_tests(conversation: Conversation, completion: str) -> bool:
    """Whether the tests pass. The prompt's imports are put before the completion's code."""
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
    """The first fenced code block, or the whole completion when it has none."""
    match = _FENCE.search(completion)
    return match[1].rstrip() if match else completion

"""Judging a Python function that a model wrote: run the problem's unit tests on it in the sandbox."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from nanochat.contract.contract import StageError
from nanochat.tasks import sandbox
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import BY_NAME

# Three or more backticks at the end of a line, perhaps with a language. What closes them stands alone on a line.
_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<before>.*?)(?P<ticks>`{3,})[ \t]*(?P<language>[\w+-]*)[ \t]*$", re.MULTILINE)
_PYTHON = frozenset({"", "python", "python3", "py"})


def passes_tests(conversation: Conversation, completion: str) -> bool:
    """Whether the tests pass. The prompt's imports are put before the completion's code.

    The program runs as the benchmark's `exec(program, {})` runs it: `__name__` is not `"__main__"`.
    """
    prompt = conversation["messages"][0]["content"]
    assert isinstance(prompt, str)
    program = f"{leading_imports(prompt)}\n\n{code_in(completion)}"
    test = f"{conversation['test']}\n\ncheck({conversation['entry_point']})"
    return sandbox.run(program, test).success


def confinement(tasks: Iterable[str], trusted: bool, own: Iterable[str] = ()) -> str | None:
    """What confines the programs of these tasks on this machine, in words; None when none of them runs programs.

    `own` are names of a user's own tasks that run programs.

    Raises StageError where too little does, unless the recipe trusts what its model writes.
    """
    programs = [*(name for name in tasks if BY_NAME[name].judge == "tests"), *own]
    if not programs:
        return None
    if not (trusted or sandbox.default.is_isolated):
        raise StageError(
            f"{', '.join(programs)} runs programs that the model writes, and this machine cannot confine them:"
            " it offers seccomp with neither user namespaces nor Landlock, or no seccomp",
            code="no_sandbox",
            hint="run it on Linux 5.13 or later on x86_64 or aarch64, leave the task out, or set chat_eval.trust_generated_code"
            " to run the programs with limits on time and memory only",
        )
    return ", ".join((*sandbox.default.walls, "resource limits"))


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
    """The first fenced block of Python, or the whole completion when it has none. Without an indentation of the whole."""
    text = completion.replace("\r\n", "\n").replace("\r", "\n")
    return _unindented(_fenced(text) or text)


def _fenced(text: str) -> str | None:
    """The first block whose fence names no language or Python. A block that is not closed ends with the text."""
    start = 0
    while opening := _FENCE.search(text, start):
        rest = text[opening.end() + 1 :]
        # Backticks inside the code do not close the block: they stand beside other text, or further to the right.
        closing = re.compile(rf"^[ \t]{{0,{len(opening['indent'])}}}`{{{len(opening['ticks'])},}}[ \t]*$", re.MULTILINE)
        end = closing.search(rest)
        length = end.start() if end else len(rest)
        if opening["language"].lower() in _PYTHON:
            return (rest[:length] if end else rest.rpartition(opening["ticks"])[0] or rest).rstrip()
        start = opening.end() + 1 + (end.end() if end else length)
    return None


def _unindented(code: str) -> str:
    """Remove what stands before every line; if it stands before the first line only, as a stray blank does, remove it there."""
    lines = textwrap.dedent(code).lstrip("\n")
    return lines.lstrip(" \t") if lines.strip() else code

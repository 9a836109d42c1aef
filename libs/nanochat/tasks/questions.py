"""A user's own evaluation: a JSON-lines file of questions with answers.

Each line is an object with a `question` and with what makes an answer right: the `answer` to one of `choices`, an `answer` as text or as
any of several texts, a `regex`, a `number`, or a `test` with the `entry_point` of the function that it checks.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from statistics import fmean
from typing import Any

from nanochat.contract.contract import StageError
from nanochat.tasks import sandbox
from nanochat.tasks.base import LETTERS, Conversation, Task, multiple_choice, reference, user_and_assistant
from nanochat.tasks.judge import JUDGES

_NUMBER = re.compile(r"[-\u2212]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")  # U+2212 is the minus sign of typesetting
REGEX_SECONDS = 5.0  # some expressions take for ever on some answers; such an answer is wrong
EXPECTED = (
    '{"question": "…"} with "answer" (a text, several, or one of "choices"), "regex", "number", or "test" and "entry_point"'
)


class Questions(Task):
    """The questions of a file. Either all are multiple choice, or none is."""

    def __init__(self, name: str, rows: list[Conversation]):
        self.name, self._rows = name, rows
        choices = [len(row["letters"]) for row in rows if "letters" in row]
        self.eval_type = "categorical" if choices else "generative"
        self.baseline = fmean(1 / count for count in choices) if choices else 0.0

    @classmethod
    def read(cls, name: str, path: Path, limit: int | None = None) -> Questions:
        """Read the first `limit` questions, all without it. Raises StageError that names the first wrong line."""
        if not path.is_file():
            raise StageError(f"no file {path}", code="task_data_missing", hint=f"check the `jsonl` of the task {name}")
        rows: list[Conversation] = []
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    text = line.decode("utf-8-sig").strip()  # some editors put a mark before the first line
                    if not text:
                        continue
                    rows.append(_conversation(_decoded(text)))
                except UnicodeDecodeError as err:
                    raise _wrong(path, number, "is not UTF-8") from err
                except (RecursionError, MemoryError) as err:  # Python's own parser raises the second
                    raise _wrong(path, number, "is nested too deeply") from err
                except json.JSONDecodeError as err:
                    raise _wrong(path, number, f"is not JSON ({err})") from err
                except ValueError as err:
                    raise _wrong(path, number, str(err)) from err
                if ("letters" in rows[-1]) != ("letters" in rows[0]):
                    raise _wrong(path, number, "mixes multiple choice with other questions; put them into two files")
                if len(rows) == limit:
                    break
        if not rows:
            raise StageError(f"{path} has no questions", code="task_data_missing", hint=f"each line is {EXPECTED}")
        return cls(name, rows)

    @property
    def runs_programs(self) -> bool:
        """Whether a question is judged by unit tests of a program that the model writes."""
        return any(row.get("rule") == "tests" for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def conversation(self, index: int) -> Conversation:
        return self._rows[index]

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether the completion is right by the rule of its line."""
        return RULES[conversation["rule"]](conversation, completion)


def _decoded(line: str) -> Any:
    row = json.loads(line)
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as err:
        raise ValueError(f"has half a character (U+{ord(err.object[err.start]):04X})") from None
    return row


def _wrong(path: Path, number: int, what: str) -> StageError:
    return StageError(f"{path} line {number} {what}", code="bad_question", hint=f"each line is {EXPECTED}")


def _conversation(row: Any) -> Conversation:
    """The problem of a line. Raises ValueError that says what is wrong with it."""
    if not isinstance(row, dict) or not isinstance(row.get("question"), str) or not row["question"].strip():
        raise ValueError("has no text 'question'")
    found = [key for key in _READ if key in row]
    if len(found) != 1:
        raise ValueError(
            f"has {' and '.join(map(repr, found)) or 'nothing'} to judge an answer by; it needs one of {', '.join(_READ)}"
        )
    if "choices" in row and found != ["answer"]:
        raise ValueError(f"has 'choices' with {found[0]!r}; they need the 'answer' that is right")
    return _READ[found[0]](row)


def _answer(row: Mapping[str, Any]) -> Conversation:
    answer, choices = row["answer"], row.get("choices")
    if choices is not None:
        return _choice(row, choices, answer)
    texts = answer if isinstance(answer, list) else [answer]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("has an 'answer' that is neither a text nor a list of texts")
    return {
        "messages": user_and_assistant(row["question"], texts[0].strip()),
        "rule": "exact",
        "answers": [t.strip() for t in texts],
    }


def _choice(row: Mapping[str, Any], choices: Any, answer: Any) -> Conversation:
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise ValueError(f"has 'choices' that are not 2 to {len(LETTERS)} texts")
    letters = list(LETTERS[: len(choices)])
    if type(answer) is int and 0 <= answer < len(choices):
        right = letters[answer]
    elif isinstance(answer, str) and choices.count(answer) == 1:
        right = letters[choices.index(answer)]
        if answer in letters and answer != right:
            raise ValueError(f"has the answer {answer!r}, which is a choice and the letter of another; give its number from 0")
    elif answer in letters:
        right = answer
    elif isinstance(answer, str) and answer in choices:
        raise ValueError(f"has the answer {answer!r}, which is {choices.count(answer)} of the choices; give its letter")
    else:
        raise ValueError(f"has the answer {answer!r}, which is no choice, no letter up to {letters[-1]} and no number from 0")
    question = multiple_choice(row["question"], choices, letters)
    return {"messages": user_and_assistant(question, right), "letters": letters, "rule": "letter"}


def _regex(row: Mapping[str, Any]) -> Conversation:
    pattern = row["regex"]
    try:
        re.compile(pattern)
    except (re.error, TypeError, OverflowError) as err:
        raise ValueError(f"has a 'regex' that is none: {err}") from err
    return {"messages": user_and_assistant(row["question"], pattern), "rule": "regex"}


def _number(row: Mapping[str, Any]) -> Conversation:
    number = row["number"]
    if type(number) not in (int, float) or not Decimal(number).is_finite():
        raise ValueError("has a 'number' that is none")
    return {"messages": user_and_assistant(row["question"], str(number)), "rule": "number"}


def _test(row: Mapping[str, Any]) -> Conversation:
    test, name = row["test"], row.get("entry_point")
    if not isinstance(test, str) or not isinstance(name, str) or not name.isidentifier():
        raise ValueError("has a 'test' without the name of a function as 'entry_point'")
    if keyword.iskeyword(name):
        raise ValueError(f"has the 'entry_point' {name!r}, which no function can be named")
    try:
        parsed = ast.parse(test)
    except SyntaxError as err:
        where = f", line {err.lineno} of it" if err.lineno else ""
        raise ValueError(f"has a 'test' that is no Python: {err.msg}{where}") from None
    if not any(_names_check(node) for node in ast.walk(parsed)):
        raise ValueError(f"has a 'test' without a function 'check'; `check({name})` is what is called")
    messages = user_and_assistant(row["question"], str(row.get("solution", "")))
    return {"messages": messages, "entry_point": name, "test": test, "rule": "tests"}


def _names_check(node: ast.AST) -> bool:
    """Whether a part of a test gives the name `check` to something."""
    if isinstance(node, ast.Name):
        return node.id == "check" and isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.FunctionDef) and node.name == "check"


_READ: dict[str, Callable[[Mapping[str, Any]], Conversation]] = {
    "answer": _answer,
    "regex": _regex,
    "number": _number,
    "test": _test,
}


def _any_answer(conversation: Conversation, completion: str) -> bool:
    """Equal texts may have other code points: an accent is part of its letter, or follows it."""
    return unicodedata.normalize("NFC", completion.strip()) in {
        unicodedata.normalize("NFC", a) for a in conversation["answers"]
    }


def _matches(conversation: Conversation, completion: str) -> bool:
    """In the sandbox, because a process of ours could not end an expression that backtracks for ever."""
    program = f"import re\nif not re.search({reference(conversation)!a}, {completion!a}):\n    raise SystemExit(1)"
    return sandbox.run(program, timeout_s=REGEX_SECONDS).success


def _last_number(conversation: Conversation, completion: str) -> bool:
    """Whether the last number of the completion has the same value."""
    numbers = _NUMBER.findall(completion)
    try:
        return bool(numbers) and Decimal(numbers[-1].replace(",", "").replace("\u2212", "-")) == Decimal(
            reference(conversation)
        )
    except InvalidOperation:  # an exponent beyond all bounds
        return False


# How a line's answers are judged. Each takes the problem and a completion.
RULES: dict[str, Callable[[Conversation, str], bool]] = {
    "letter": JUDGES["letter"],
    "exact": _any_answer,
    "regex": _matches,
    "number": _last_number,
    "tests": JUDGES["tests"],
}

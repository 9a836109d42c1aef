"""What a conversation is, and what every task can do. Imports no torch and no tokenizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict, overload

EvalType = Literal["generative", "categorical"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Part(TypedDict):
    """A piece of an assistant's message. `python` is code for the tool; `python_output` is the tool's answer."""

    type: Literal["text", "python", "python_output"]
    text: str


class Message(TypedDict):
    """`weight` 0: the model reads this answer but does not learn it in SFT, as in OpenAI's files."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]
    weight: NotRequired[int]


class Conversation(TypedDict):
    """Messages alternate user, assistant, user, ...; one system message may come first. Judging reads the other fields."""

    messages: list[Message]
    letters: NotRequired[list[str]]
    subject: NotRequired[str]
    entry_point: NotRequired[str]
    test: NotRequired[str]
    rule: NotRequired[str]
    answers: NotRequired[list[str]]


class Task(Sequence[Conversation], ABC):
    """A dataset of conversations that also knows how to judge a completion. `baseline` is the accuracy of guessing."""

    name: str
    eval_type: EvalType = "generative"
    baseline: float = 0.0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def conversation(self, index: int) -> Conversation:
        """Row `index`, 0 <= index < len(self)."""

    def evaluate(self, conversation: Conversation, completion: str) -> bool:
        """Whether `completion`, a text for the conversation's last turn, is right. Raises TypeError on training-only tasks."""
        raise TypeError(f"task {self.name!r} is for training only; it has no right answer to compare with")

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            return [self.conversation(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"task {self.name!r} has {len(self)} rows; there is no row {index}")
        return self.conversation(index % len(self))


def user_and_assistant(question: str, answer: str | list[Part]) -> list[Message]:
    """One turn of each."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def multiple_choice(question: str, choices: Sequence[str], letters: Sequence[str]) -> str:
    """A question with its choices; each choice ends with `=` and its letter.

    No space separates `=` and the letter, so that the letter is the same token as at the start of the answer.
    """
    lines = [f"Multiple Choice question: {question}", *(f"- {c}={k}" for c, k in zip(choices, letters, strict=True))]
    return "\n".join(lines) + "\n\nRespond only with the letter of the correct answer."


def reference(conversation: Conversation) -> str:
    """The text of the last assistant message, its parts joined."""
    content = conversation["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)

"""The four ways to judge an answer, by the name that the catalogue gives them."""

from __future__ import annotations

import re
from collections.abc import Callable

from nanochat.tasks.base import Conversation, reference
from nanochat.tasks.catalog import Judge
from nanochat.tasks.programs import passes_tests

_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


def final_number(text: str) -> str | None:
    """What follows the first `#### ` in digits, full stops and commas, without the commas; None when there is nothing.

    This is the GSM8K benchmark's own rule, so a full stop at the end stays: `#### 109.` is not the answer 109.
    """
    match = _ANSWER.search(text)
    return match[1].replace(",", "") if match else None


def same_number(conversation: Conversation, completion: str) -> bool:
    """Whether a completion ends with the reference's number. Both are compared as text, as the GSM8K benchmark does."""
    wanted = final_number(reference(conversation))
    return wanted is not None and final_number(completion) == wanted


def same_letter(conversation: Conversation, completion: str) -> bool:
    """Whether the completion is the reference's letter. Raises ValueError when it is none of the row's letters."""
    letters = conversation.get("letters", [])
    if completion not in letters:
        raise ValueError(f"the answer {completion!r} is none of {letters}; restrict the choice to `letters`")
    return completion == reference(conversation)


def same_text(conversation: Conversation, completion: str) -> bool:
    """Whether the completion is the reference, apart from white space around it."""
    return completion.strip() == reference(conversation)


JUDGES: dict[Judge, Callable[[Conversation, str], bool]] = {
    "letter": same_letter,
    "number": same_number,
    "text": same_text,
    "tests": passes_tests,
}

"""Whether an answer is right: the number after four hashes, or the letter of a choice."""

from __future__ import annotations

import re

from nanochat.tasks.base import Conversation, reference

_ANSWER = re.compile(r"#### (-?[0-9.,]+)")


def final_number(text: str) -> str | None:
    """The number after the first `#### `, without thousands separators or a full stop at the end; None when there is none."""
    match = _ANSWER.search(text)
    return match[1].replace(",", "").rstrip(".") if match else None


def same_number(conversation: Conversation, completion: str) -> bool:
    """Whether a completion ends on the reference's number; both are compared as written, as the benchmark does."""
    wanted = final_number(reference(conversation))
    return wanted is not None and final_number(completion) == wanted


def same_letter(conversation: Conversation, completion: str) -> bool:
    """Whether the completion is the reference's letter. Raises ValueError when it is none of the row's letters."""
    letters = conversation.get("letters", [])
    if completion not in letters:
        raise ValueError(f"the answer {completion!r} is none of {letters}; restrict the choice to `letters`")
    return completion == reference(conversation)

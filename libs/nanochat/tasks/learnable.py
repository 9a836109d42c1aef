"""Whether a stage can learn anything of a user's own conversations, told before there is a tokenizer. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.chat_file import UNTAUGHT, ChatFile, teaches
from nanochat.tasks.use import OwnFile, OwnMixture

_WORD = re.compile(r"[^\W_]+")  # no piece of the split pattern reaches from one of these into the next
Problem = tuple[str, StageError]  # the field of the recipe, and what is wrong


def problems(mixture: OwnMixture, files: Mapping[str, ChatFile]) -> Iterator[Problem]:
    """Why nothing could be learned. `files` are by place, without broken rows and read whole; nothing is known of one that is missing."""
    if mixture.field.startswith("sft."):  # midtraining learns every token
        for use in mixture.files:
            if use.place in files and not any(map(teaches, _rows(use, files))):
                hint = "remove the weights, or leave the file out"
                yield f"{use.field}.path", StageError(f"{use.place}: {UNTAUGHT}", code="nothing_to_learn", hint=hint)
    if mixture.field.endswith(".train") and mixture.alone and all(use.place in files for use in mixture.files):
        yield from _too_long(mixture, files)


def fewest_tokens(conversation: Conversation) -> int:
    """A number of tokens that no tokenizer with nanochat's split pattern stays below: one for each word or number, and the special
    tokens around the messages. Web text has about 1.3 times as many."""
    count = 1
    for message in conversation["messages"]:
        content = message["content"]
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        count += 2 * (message["role"] != "system") + sum(len(_WORD.findall(text)) for text in texts)
    return count


def none_fits(rows: int, keep: int, shortest: str) -> StageError:
    """Every row of a mixture is longer than the `keep` tokens that are read. `shortest` says how many the shortest has."""
    return StageError(
        f"no conversation fits the context of {keep:,} tokens: the shortest of {rows:,} has {shortest}",
        code="nothing_to_learn",
        hint="raise model.seq_len, or use shorter conversations; `nanochat data check FILE` shows their lengths",
    )


def _too_long(mixture: OwnMixture, files: Mapping[str, ChatFile]) -> Iterator[Problem]:
    lengths = []
    for use in mixture.files:
        for row in _rows(use, files):
            lengths.append(fewest_tokens(row))
            if lengths[-1] <= mixture.keep:  # most often the first one
                return
    yield mixture.field, none_fits(len(lengths), mixture.keep, f"at least {min(lengths):,}")


def _rows(use: OwnFile, files: Mapping[str, ChatFile]) -> Iterator[Conversation]:
    file = files[use.place]
    return (file.conversation(index)[1] for index in islice(range(len(file)), use.limit))

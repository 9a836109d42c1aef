"""What a file of conversations holds, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from nanochat.chats.overlap import Questions
from nanochat.tasks.base import Conversation, reference
from nanochat.tasks.chat_file import ChatFile, teaches
from nanochat.tasks.formats import NotAConversation
from nanochat.tokenizer import Tokenizer


class Broken(BaseModel, frozen=True):
    place: int = Field(description="Line, or row, of the file.")
    problem: str = Field(description="Why it is no conversation.")


class Overlap(BaseModel, frozen=True):
    place: int = Field(description="Line, or row, of the file.")
    task: str = Field(description="The evaluation that asks the same.")


class Tokens(BaseModel, frozen=True):
    """Figures that need a tokenizer."""

    tokenizer: str = Field(description="Folder of the tokenizer.")
    context: int = Field(description="Tokens of a row that are kept.")
    total: int = Field(description="Tokens of all rows.")
    median: int = Field(description="Tokens of the row in the middle.")
    longest: int = Field(description="Tokens of the longest row.")
    longest_place: int = Field(description="Where it is.")
    longer_rows: int = Field(description="Rows longer than the context, which are cut.")
    cut: int = Field(description="Tokens that are cut off.")
    trained: int = Field(description="Tokens that SFT learns: those of the assistant, within the context.")
    unlearned_rows: int = Field(description="Rows whose answers begin after the context, or have the weight 0; SFT skips them.")

    @property
    def share(self) -> float:
        """Trained tokens of all tokens that are kept."""
        return self.trained / max(1, self.total - self.cut)


class Check(BaseModel, frozen=True):
    """A file of conversations, checked."""

    file: str
    unit: str = Field(description="What a place counts: line or row.")
    rows: int = Field(description="Conversations that can be trained on.")
    forms: dict[str, int] = Field(description="How many there are of each form.")
    answers: int = Field(description="Messages of the assistant.")
    characters: int = Field(description="Characters of all messages.")
    broken: list[Broken]
    empty_answers: list[int] = Field(description="Places of conversations with an answer without text.")
    duplicates: list[int] = Field(description="Places of conversations that the file already has.")
    compared_with: list[str] = Field(description="Evaluations whose questions were compared.")
    overlaps: list[Overlap]
    taught: int = Field(description="Conversations with an answer that SFT learns, one whose weight is not 0.")
    tokens: Tokens | None = Field(description="Null when there is no tokenizer.")

    @property
    def is_good(self) -> bool:
        """Whether a run accepts the file."""
        return self.taught > 0 and not self.broken and (self.tokens is None or self.tokens.longer_rows < self.rows)


def check(
    path: Path, made_with: tuple[Tokenizer, Path] | None = None, context: int = 2048, evaluations: Questions | None = None
) -> Check:
    """Read every row of a file. Raises StageError when the file itself cannot be read."""
    file = ChatFile.open(path)
    forms: Counter[str] = Counter()
    broken: list[Broken] = []
    empty: list[int] = []
    duplicates: list[int] = []
    overlaps: list[Overlap] = []
    lengths: list[_Length] = []
    seen: set[bytes] = set()
    answers = characters = taught = 0
    for index in range(len(file)):
        place = file.place(index)
        try:
            form, conversation = file.conversation(index)
        except NotAConversation as err:
            broken.append(Broken(place=place, problem=str(err)))
            continue
        forms[form] += 1
        said = [reference({"messages": [m]}) for m in conversation["messages"]]
        own = [text for m, text in zip(conversation["messages"], said, strict=True) if m["role"] == "assistant"]
        answers += len(own)
        characters += sum(map(len, said))
        taught += teaches(conversation)
        if not all(text.strip() for text in own):
            empty.append(place)
        digest = hashlib.blake2b(json.dumps(conversation).encode(), digest_size=16).digest()
        if digest in seen:
            duplicates.append(place)
        seen.add(digest)
        task = evaluations.asked_in(conversation) if evaluations else None
        if task:
            overlaps.append(Overlap(place=place, task=task))
        if made_with:
            lengths.append(_Length.of(conversation, made_with[0], context, place))
    return Check(
        file=str(path),
        unit=file.unit,
        rows=forms.total(),
        forms=dict(forms),
        answers=answers,
        characters=characters,
        broken=broken,
        empty_answers=empty,
        duplicates=duplicates,
        compared_with=evaluations.tasks if evaluations else [],
        overlaps=overlaps,
        taught=taught,
        tokens=_tokens(lengths, str(made_with[1]), context) if made_with and lengths else None,
    )


class _Length(BaseModel, frozen=True):
    place: int
    tokens: int
    trained: int

    @classmethod
    def of(cls, conversation: Conversation, tokenizer: Tokenizer, context: int, place: int) -> _Length:
        ids, mask = tokenizer.render(conversation)
        return cls(place=place, tokens=len(ids), trained=sum(mask[:context]))


def _tokens(lengths: Sequence[_Length], tokenizer: str, context: int) -> Tokens:
    ordered = sorted(lengths, key=lambda row: row.tokens)
    return Tokens(
        tokenizer=tokenizer,
        context=context,
        total=sum(row.tokens for row in lengths),
        median=ordered[len(ordered) // 2].tokens,
        longest=ordered[-1].tokens,
        longest_place=ordered[-1].place,
        longer_rows=sum(row.tokens > context for row in lengths),
        cut=sum(max(0, row.tokens - context) for row in lengths),
        trained=sum(row.trained for row in lengths),
        unlearned_rows=sum(row.trained == 0 for row in lengths),
    )

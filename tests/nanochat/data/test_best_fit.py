"""Conversations packed by best fit: whole, once in a pass, and nothing is lost without being counted."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.contract.contract import StageError
from nanochat.data import best_fit
from nanochat.data.best_fit import BestFitLoader
from nanochat.data.resize import state_near
from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tokenizer import Tokenizer

WIDTH = 40


def chat(number: int, words: int) -> Conversation:
    return {"messages": user_and_assistant(f"number {number}", "fox " * words)}


def loader(mixture: list[Conversation], tokenizer: Tokenizer, **changes: object) -> BestFitLoader:
    settings = {"batch_size": 2, "seq_len": WIDTH, "answers_only": False, **changes}
    return BestFitLoader(mixture, tokenizer, **settings)  # type: ignore[arg-type]


def conversations(inputs: list[list[int]], targets: list[list[int]], tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """The conversations of rows in which every token is a target."""
    found: list[tuple[int, ...]] = []
    for row, wanted in zip(inputs, targets, strict=True):
        length = next((i for i, target in enumerate(wanted) if target == -1), len(wanted))
        ids = [*row[: min(length, len(row))], *wanted[length - 1 : length]]
        starts = [i for i, token in enumerate(ids) if token == tokenizer.bos]
        assert starts[0] == 0, "a row begins with a conversation"
        found += [tuple(ids[a:b]) for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    return found


@given(lengths=st.lists(st.integers(1, 30), min_size=3, max_size=40), world=st.integers(1, 3), buffer=st.integers(1, 50))
@settings(deadline=None, max_examples=40)
def test_a_pass_holds_every_conversation_once_and_whole(
    tokenizer: Tokenizer, lengths: list[int], world: int, buffer: int
) -> None:
    mixture = [chat(i, words) for i, words in enumerate(lengths)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_fit, "BUFFER", buffer)
        for rank in range(world):
            mine = loader(mixture, tokenizer, batch_size=1, rank=rank, world_size=world)
            seen: list[tuple[int, ...]] = []
            while mine.epoch_progress() < 1:
                inputs, targets = mine.next_batch()
                assert inputs.shape == targets.shape == (1, WIDTH)
                seen += conversations(inputs.tolist(), targets.tolist(), tokenizer)
            rendered = [tokenizer.render(one, 10_000)[0] for one in mixture[rank::world]]
            assert sorted(seen) == sorted(tuple(ids[: WIDTH + 1]) for ids in rendered)
            state = mine.state()
            assert state["cut_tokens"] == sum(max(0, len(ids) - WIDTH - 1) for ids in rendered)
            assert state["placed_tokens"] == sum(map(len, seen))
            assert state["trained_conversations"] == len(rendered)
            assert state["skipped_conversations"] == 0


@given(before=st.integers(0, 12), buffer=st.integers(1, 20))
@settings(deadline=None, max_examples=25)
def test_resuming_anywhere_continues_the_same(tokenizer: Tokenizer, before: int, buffer: int) -> None:
    mixture = [chat(i, 1 + 7 * i % 23) for i in range(17)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_fit, "BUFFER", buffer)
        first = loader(mixture, tokenizer, answers_only=True)
        for _ in range(before):
            first.next_batch()
        again = loader(mixture, tokenizer, answers_only=True, state=first.state())
        for _ in range(5):
            assert [t.tolist() for t in again.next_batch()] == [t.tolist() for t in first.next_batch()]
            assert again.state() == first.state()


def test_only_answers_are_targets_and_what_has_none_is_counted(tokenizer: Tokenizer) -> None:
    question: Conversation = {"messages": user_and_assistant("the fox " * 100, "hi")}
    mixture = [chat(0, 2), question, chat(1, 3)]
    packed = loader(mixture, tokenizer, batch_size=1, answers_only=True)
    targets = packed.next_batch()[1][0].tolist()
    trained = []
    for one in (mixture[2], mixture[0]):  # the longer one goes first
        ids, mask = tokenizer.render(one, 10_000)
        trained += [token for token, chosen in zip(ids, mask, strict=True) if chosen]
    assert [t for t in targets if t != -1] == trained
    assert (packed.state()["skipped_conversations"], packed.state()["trained_conversations"]) == (1, 2)
    with pytest.raises(StageError, match="none of the 3 conversations"):
        loader([question] * 3, tokenizer, answers_only=True).next_batch()


def test_rows_are_fuller_than_with_a_conversation_each(tokenizer: Tokenizer) -> None:
    mixture = [chat(i, 1 + i % 5) for i in range(60)]
    packed = loader(mixture, tokenizer, batch_size=1)
    rows = 0
    while packed.epoch_progress() < 1:
        packed.next_batch()
        rows += 1
    tokens = sum(len(tokenizer.render(one, 10_000)[0]) for one in mixture)
    assert rows <= math.ceil(1.1 * tokens / (WIDTH + 1)) + 1


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_ranks_repeats_no_conversation_and_counts_what_it_skips(
    tokenizer: Tokenizer, old: int, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_fit, "BUFFER", 4)
    mixture = [chat(i, 1 + i % 9) for i in range(40)]
    before = [loader(mixture, tokenizer, rank=r, world_size=old) for r in range(old)]
    seen: list[tuple[int, ...]] = []
    for _ in range(2):
        for one in before:
            inputs, targets = one.next_batch()
            seen += conversations(inputs.tolist(), targets.tolist(), tokenizer)
    states = [one.state() for one in before]
    fresh = [loader(mixture, tokenizer, rank=r, world_size=new) for r in range(new)]
    after = [loader(mixture, tokenizer, rank=r, world_size=new, state=state_near(fresh[r], states)) for r in range(new)]
    for one in after:
        inputs, targets = one.next_batch()
        seen += conversations(inputs.tolist(), targets.tolist(), tokenizer)
    assert len(seen) == len(set(seen))
    skipped = sum(one.state()["skipped_conversations"] for one in after)
    assert skipped == sum(len(state["waiting"]) for state in states)

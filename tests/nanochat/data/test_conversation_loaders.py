"""Batches of conversations: packed for midtraining, one per row for SFT."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.contract.contract import StageError
from nanochat.data.loader import ConversationLoader, SftLoader
from nanochat.tasks.base import Conversation, user_and_assistant
from nanochat.tokenizer import Tokenizer

BOTH = pytest.mark.parametrize("kind", [ConversationLoader, SftLoader])


def chats(count: int) -> list[Conversation]:
    return [{"messages": user_and_assistant(f"question {i}?", f"answer {i * 7}" * (1 + i % 3))} for i in range(count)]


def first_pass(loader: ConversationLoader | SftLoader, tokenizer: Tokenizer) -> list[str]:
    """The questions in the batches of the first pass, in order."""
    text = ""
    while loader.epoch_progress() < 1:
        inputs, targets = loader.next_batch()
        packed = isinstance(loader, ConversationLoader)
        rows = [[*inputs.flatten().tolist(), int(targets.flatten()[-1])]] if packed else inputs.tolist()
        text += "".join(tokenizer.decode(row) for row in rows)
    return [part.split("<|user_end|>")[0] for part in text.split("<|user_start|>")[1:]]


@BOTH
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_pass_holds_every_conversation_once_over_all_ranks(
    tokenizer: Tokenizer, kind: type[ConversationLoader | SftLoader], world_size: int
) -> None:
    mixture = chats(12)
    seen: Counter[str] = Counter()
    for rank in range(world_size):
        loader = kind(mixture, tokenizer, batch_size=1, seq_len=64, rank=rank, world_size=world_size)
        assert len(loader) == 12
        seen.update(first_pass(loader, tokenizer)[: 12 // world_size])  # the last batch may reach into the next pass
    assert seen == Counter(c["messages"][0]["content"] for c in mixture)


@BOTH
@settings(max_examples=20, deadline=None)
@given(before=st.integers(0, 30), world=st.integers(1, 3), data=st.data())
def test_resuming_anywhere_continues_the_same(
    tokenizer: Tokenizer, kind: type[ConversationLoader | SftLoader], before: int, world: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, world - 1))
    shape = {"batch_size": 2, "seq_len": data.draw(st.integers(20, 40)), "rank": rank, "world_size": world}
    loader = kind(chats(11), tokenizer, **shape)
    for _ in range(before):
        loader.next_batch()
    state = json.loads(json.dumps(loader.state()))
    again = kind(chats(11), tokenizer, **shape, state=state)
    assert again.state() == state
    assert again.epoch_progress() == loader.epoch_progress()
    for _ in range(10):
        for a, b in zip(again.next_batch(), loader.next_batch(), strict=True):
            assert a.tolist() == b.tolist()
    with pytest.raises(StageError, match="world_size"):
        kind(chats(11), tokenizer, **{**shape, "world_size": 7}, state=state)


@BOTH
def test_many_passes_do_not_end(tokenizer: Tokenizer, kind: type[ConversationLoader | SftLoader]) -> None:
    loader = kind(chats(3), tokenizer, batch_size=2, seq_len=32, rank=1, world_size=2)
    for _ in range(50):
        loader.next_batch()
    assert loader.epoch_progress() > 3


def test_sft_trains_only_the_assistants_words(tokenizer: Tokenizer) -> None:
    mixture = chats(4)
    inputs, targets = SftLoader(mixture, tokenizer, batch_size=4, seq_len=128).next_batch()
    assert inputs.shape == targets.shape
    for row, conversation in enumerate(mixture):
        ids, mask = tokenizer.render(conversation, 129)
        trained = [i for i, m in zip(ids, mask, strict=True) if m]
        assert [t for t in targets[row].tolist() if t != -1] == trained
        assert inputs[row].tolist()[: len(ids) - 1] == ids[:-1]
        assert set(inputs[row].tolist()[len(ids) - 1 :]) <= {tokenizer.special("<|assistant_end|>")}
        assert set(targets[row].tolist()[len(ids) - 1 :]) <= {-1}


def test_a_conversation_longer_than_the_row_is_cut_and_no_batch_is_all_padding(tokenizer: Tokenizer) -> None:
    long_answer: Conversation = {"messages": user_and_assistant("hi", "the fox " * 100)}
    long_question: Conversation = {"messages": user_and_assistant("the fox " * 100, "hi")}
    loader = SftLoader([long_question, long_answer, long_question, long_question], tokenizer, batch_size=2, seq_len=24)
    for _ in range(6):
        inputs, targets = loader.next_batch()
        assert inputs.shape == (2, 24)
        assert (targets != -1).any(dim=1).all()
    packed = ConversationLoader([long_answer], tokenizer, batch_size=1, seq_len=24)
    assert packed.next_batch()[0].tolist()[0].count(tokenizer.bos) == 1


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_rows_of_a_step_do_not_depend_on_the_ranks(tokenizer: Tokenizer, world_size: int) -> None:
    long_question: Conversation = {"messages": user_and_assistant("the fox " * 100, "hi")}
    mixture = [*chats(5), long_question, *chats(9)[5:], long_question, long_question]

    def rows(world_size: int) -> list[list[list[int]]]:
        loaders = [
            SftLoader(mixture, tokenizer, batch_size=8 // world_size, seq_len=24, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        steps = []
        for _ in range(3):
            targets = [row for loader in loaders for row in loader.next_batch()[1].tolist()]
            steps.append(sorted([t for t in row if t != -1] for row in targets))
            assert len({loader.epoch_progress() for loader in loaders}) == 1
        return steps

    assert rows(world_size) == rows(1)


@pytest.mark.timeout(20)
def test_it_is_an_error_when_no_answer_fits_a_row(tokenizer: Tokenizer) -> None:
    long_question: Conversation = {"messages": user_and_assistant("the fox " * 100, "hi")}
    with pytest.raises(StageError, match="within 24 tokens"):
        SftLoader([long_question] * 3, tokenizer, batch_size=2, seq_len=24, rank=1, world_size=2).next_batch()


@BOTH
def test_an_empty_mixture_is_refused(tokenizer: Tokenizer, kind: type[ConversationLoader | SftLoader]) -> None:
    with pytest.raises(StageError, match="no conversation"):
        kind([], tokenizer, batch_size=1, seq_len=8)

"""Conversations rendered as ids with a loss mask: the tokens that are trained, those that are not, and refused input."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer

TOOL: Conversation = {
    "messages": [
        {"role": "user", "content": "What is 12 + 30?"},
        {
            "role": "assistant",
            "content": [
                {"type": "python", "text": "12+30"},
                {"type": "python_output", "text": "42"},
                {"type": "text", "text": "#### 42"},
            ],
        },
    ]
}


def shown(tokenizer: Tokenizer, conversation: Conversation) -> tuple[str, str]:
    """(trained text, untrained text), special tokens by name."""
    ids, mask = tokenizer.render(conversation, 10_000)
    assert len(ids) == len(mask)
    return tuple(tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m == want]) for want in (1, 0))  # type: ignore[return-value]


def test_only_the_assistants_text_and_tool_calls_are_trained(tokenizer: Tokenizer) -> None:
    trained, untrained = shown(tokenizer, TOOL)
    assert trained == "<|python_start|>12+30<|python_end|>#### 42<|assistant_end|>"
    assert untrained == "<|bos|><|user_start|>What is 12 + 30?<|user_end|><|assistant_start|><|output_start|>42<|output_end|>"


def test_the_layout_is_nanochats(tokenizer: Tokenizer) -> None:
    two = [{"role": r, "content": c} for r, c in (("user", "hi"), ("assistant", "yes"), ("user", "ok"), ("assistant", "no"))]
    ids, _ = tokenizer.render({"messages": two}, 10_000)  # type: ignore[typeddict-item]
    assert tokenizer.decode(ids) == (
        "<|bos|><|user_start|>hi<|user_end|><|assistant_start|>yes<|assistant_end|>"
        "<|user_start|>ok<|user_end|><|assistant_start|>no<|assistant_end|>"
    )
    assert ids.count(tokenizer.bos) == 1


def test_a_system_message_is_merged_into_the_users_and_the_original_kept(tokenizer: Tokenizer) -> None:
    with_system: Conversation = {"messages": [{"role": "system", "content": "Be brief."}, *TOOL["messages"]]}
    before = copy.deepcopy(with_system)
    _, untrained = shown(tokenizer, with_system)
    assert "<|user_start|>Be brief.\n\nWhat is 12 + 30?<|user_end|>" in untrained
    assert with_system == before


@given(limit=st.integers(min_value=1, max_value=80))
def test_cutting_keeps_the_beginning(tokenizer: Tokenizer, limit: int) -> None:
    ids, mask = tokenizer.render(TOOL, 10_000)
    assert tokenizer.render(TOOL, limit) == (ids[:limit], mask[:limit])


def test_rendering_for_completion_ends_where_the_answer_begins(tokenizer: Tokenizer) -> None:
    ids = tokenizer.render_for_completion(TOOL)
    assert tokenizer.decode(ids) == "<|bos|><|user_start|>What is 12 + 30?<|user_end|><|assistant_start|>"
    assert tokenizer.render_for_completion({"messages": TOOL["messages"][:1]}) == ids


def test_completing_a_long_conversation_is_not_cut(tokenizer: Tokenizer) -> None:
    ids = tokenizer.render_for_completion({"messages": [{"role": "user", "content": "\U0001f600" * 3000}]})
    assert tokenizer.decode(ids).endswith("\U0001f600<|user_end|><|assistant_start|>")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one"),
        ([{"role": "assistant", "content": "hi"}], "must be from 'user'"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "message 1 is from 'user'"),
        ([{"role": "system", "content": "a"}], "followed by a user"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "must be a string"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "image", "text": ""}]}], "'image'"),
    ],
)
def test_a_malformed_conversation_is_refused(tokenizer: Tokenizer, messages: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.render({"messages": messages}, 100)


def test_nothing_to_answer_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="user message to answer"):
        tokenizer.render_for_completion({"messages": []})

"""Prompts that are too long are cut where the request asks for it, and stay in the trained form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nanochat.tokenizer import Tokenizer
from services.inference.errors import ApiError
from services.inference.prompts import chat_prompt, truncated
from services.inference.schemas.messages import MessagesBody

WORDS = st.text("abc é", min_size=1, max_size=20)
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content}, st.sampled_from(["system", "user", "assistant"]), WORDS
    ),
    max_size=8,
)


@given(messages=MESSAGES, last=WORDS, keep=st.integers(1, 120))
def test_a_conversation_keeps_its_newest_turns(
    tokenizer: Tokenizer, messages: list[dict[str, str]], last: str, keep: int
) -> None:
    body = MessagesBody.model_validate({"messages": [*messages, {"role": "user", "content": last}]})
    whole = chat_prompt(body, tokenizer)
    try:
        tokens = chat_prompt(body, tokenizer, keep)
    except ApiError:
        assert keep < 8 + len(tokenizer.encode(last)), "there was room for a part of the last turn"
        return
    start, end, answer = (tokenizer.special(f"<|{name}|>") for name in ("user_start", "user_end", "assistant_start"))
    assert len(tokens) <= max(keep, 0)
    assert tokens[:2] == [tokenizer.bos, start]
    assert tokens[-2:] == [end, answer]
    assert tokens.count(start) == tokens.count(end) == tokens.count(answer)
    if len(whole) <= keep:
        assert tokens == whole


def test_the_system_message_outlives_the_oldest_turns(tokenizer: Tokenizer) -> None:
    system, last = {"role": "system", "content": "S"}, {"role": "user", "content": "U"}
    old = [{"role": "user", "content": "x" * 50}, {"role": "assistant", "content": "y" * 50}]
    body = MessagesBody.model_validate({"messages": [system, *old, *old, last]})
    expected = tokenizer.render_for_completion({"messages": [{"role": "user", "content": "S\n\nU"}]})
    assert chat_prompt(body, tokenizer, len(expected) + 10) == expected


def test_a_begun_answer_stays_whole(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "x" * 50}, {"role": "assistant", "content": "begun"}]
    body = MessagesBody.model_validate({"messages": messages, "continue_final_message": True})
    tokens = chat_prompt(body, tokenizer, 20)
    assert len(tokens) == 20
    assert tokenizer.decode(tokens).endswith("<|user_end|><|assistant_start|>begun")


@given(text=st.text("ab", max_size=40), keep=st.integers(1, 50))
def test_a_text_keeps_its_end_and_its_bos(tokenizer: Tokenizer, text: str, keep: int) -> None:
    tokens = [tokenizer.bos, *tokenizer.encode(text)]
    cut = truncated(tokens, tokenizer, keep)
    assert len(cut) == min(keep, len(tokens))
    assert cut[1:] == tokens[len(tokens) - len(cut) + 1 :]
    assert cut[0] == tokenizer.bos or keep == 1

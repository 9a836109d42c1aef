"""What the settings beside the chat make of a conversation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.inference import Message, ServedModel
from services.ui.chat.settings import MOST_TOKENS, Settings, WrongSeed, seed_of

CHAT = ServedModel(id="m1", run_name="tiny", stage="sft", step=40)
BASE = ServedModel(id="m0", run_name="tiny", stage="base_train", step=40)
TALK = [Message(role="user", content="Hi"), Message(role="assistant", content="Yes"), Message(role="user", content="Go")]
PLAIN = Settings("m1", 0.5, False, "m0", 1.0, 50, 0.9, 0, "", False, " Be brief. ")


def test_a_seed_is_a_whole_number_or_none() -> None:
    assert [seed_of(text) for text in ("", "  ", None, " 42 ", "-1", str(2**64 - 1))] == [None, None, None, 42, -1, 2**64 - 1]


@pytest.mark.parametrize("text", ["abc", "1.5", "1e3", str(2**64), str(-(2**63) - 1), "<b>", "x 3"])
def test_any_other_seed_is_refused_in_words(text: str) -> None:
    with pytest.raises(WrongSeed, match="A seed is a whole number"):
        seed_of(text)


def test_a_chat_model_gets_the_conversation_after_the_system_prompt() -> None:
    (ask,) = PLAIN.asks([TALK, TALK], [CHAT, BASE], lambda model: f"the {model}")
    assert ask.messages == [{"role": "system", "content": "Be brief."}, *TALK]
    assert ask.sampling == {"temperature": 0.5, "top_p": 0.9, "top_k": 50}
    assert ask.label == "the m1"


def test_a_base_model_continues_all_as_one_text() -> None:
    (ask,) = replace(PLAIN, model="m0", probabilities=True).asks([TALK, TALK], [CHAT, BASE])
    assert ask.messages == "HiYesGo"
    assert ask.sampling["max_tokens"] == MOST_TOKENS  # a text completion without a bound has 16 tokens
    assert ask.sampling["logprobs"] == 5


def test_side_by_side_asks_two_models_about_their_own_conversations() -> None:
    other = [Message(role="user", content="Hi")]
    left, right = replace(PLAIN, compared=True, seed="7").asks([TALK, other], [CHAT, BASE])
    assert (left.model, left.sampling["temperature"], left.sampling["seed"]) == ("m1", 0.5, 7)
    assert (right.model, right.sampling["temperature"], right.messages) == ("m0", 1.0, "Hi")

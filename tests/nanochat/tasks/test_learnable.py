"""The bound of a conversation's length that needs no tokenizer."""

import random

import rustbpe
from nanochat.tasks.base import Conversation
from nanochat.tasks.learnable import fewest_tokens

ALPHABETS = ("ab \n", "aB' s1²½٣_-.,", "ne pas\u00a0\u2003\u0301é", "日本 語\tⅫ👩\u200d🚀")


def test_no_text_has_fewer_pieces_than_the_bound() -> None:
    draw = random.Random(4)
    for alphabet in ALPHABETS:
        for _ in range(2000):
            text = "".join(draw.choices(alphabet, k=draw.randrange(40)))
            asked: Conversation = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": []}]}
            assert fewest_tokens(asked) <= 1 + 2 + len(rustbpe.split(text)) + 2, repr(text)


def test_the_bound_counts_words_numbers_and_what_is_around_messages() -> None:
    conversation: Conversation = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is 12345 + 1?"},
            {"role": "assistant", "content": [{"type": "python", "text": "12345+1"}, {"type": "text", "text": "12346"}]},
        ]
    }
    assert fewest_tokens(conversation) == 1 + (2 + 2 + 4) + (2 + 2 + 1)

"""Tokens become text. It never shows an incomplete character, a special token or a part of a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.tokenizer import Tokenizer
from services.inference.text import AnswerText, Delta, StopTexts, ToolCall

WORDS = ["naïve 日本語 🎉🚀", "café\n", " 12 + 7 = ", "", "👩‍🔬 e\u0301", "plain words, and more of them"]


def feed(answer: AnswerText, tokens: list[int]) -> tuple[list[str], list[ToolCall]]:
    """The pieces of text and the tool calls, up to the end of the answer, including the flush."""
    deltas: list[Delta] = []
    for token in tokens:
        deltas.append(answer.push(token))
        if answer.finished:
            break
    deltas.append(answer.flush())
    return [d.text for d in deltas if d.text], [t for d in deltas for t in d.tools]


def span(tokenizer: Tokenizer, name: str, text: str) -> list[int]:
    return [tokenizer.special(f"<|{name}_start|>"), *tokenizer.encode(text), tokenizer.special(f"<|{name}_end|>")]


@given(texts=st.lists(st.one_of(st.sampled_from(WORDS), st.text()), max_size=6))
def test_text_arrives_whole_in_whole_characters(tokenizer: Tokenizer, texts: list[str]) -> None:
    text = "".join(texts).replace("\ufffd", "?")
    pieces, calls = feed(AnswerText(tokenizer), tokenizer.encode(text))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert calls == []


def test_every_piece_is_shown_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    answer = AnswerText(tokenizer)
    shown = [answer.push(token).text for token in tokenizer.encode("one two three")]
    assert "".join(shown) == "one two three"


def test_calculator_spans_are_told_apart_from_the_text(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("12 + 7 is ") + span(tokenizer, "python", "12+7") + span(tokenizer, "output", "19")
    tokens += [*tokenizer.encode("19."), tokenizer.special("<|assistant_end|>"), *tokenizer.encode("never seen")]
    answer = AnswerText(tokenizer)
    pieces, calls = feed(answer, tokens)
    assert "".join(pieces) == "12 + 7 is 19."
    assert calls == [ToolCall("12+7", "19")]
    assert answer.finished


def test_a_call_without_an_answer_is_told_before_the_text_that_follows(tokenizer: Tokenizer) -> None:
    answer = AnswerText(tokenizer)
    tokens = span(tokenizer, "python", "import os") + tokenizer.encode("hm")
    deltas = [answer.push(token) for token in tokens] + [answer.flush()]
    first = next(d for d in deltas if d.tools or d.text)
    assert first.tools == [ToolCall("import os")]
    assert "".join(d.text for d in deltas) == "hm"


def test_an_open_span_at_the_end_shows_nothing(tokenizer: Tokenizer) -> None:
    tokens = [*tokenizer.encode("so "), tokenizer.special("<|python_start|>"), *tokenizer.encode("1+")]
    pieces, calls = feed(AnswerText(tokenizer), tokens)
    assert ("".join(pieces), calls) == ("so ", [])


def test_special_tokens_are_never_shown(tokenizer: Tokenizer) -> None:
    specials = [tokenizer.special(f"<|{name}|>") for name in ("user_start", "user_end", "assistant_start")]
    pieces, _ = feed(AnswerText(tokenizer), [*tokenizer.encode("a"), *specials, *tokenizer.encode("b")])
    assert "".join(pieces) == "ab"


@pytest.mark.parametrize("end", ["assistant_end", "bos"])
def test_the_end_of_turn_finishes_the_row(tokenizer: Tokenizer, end: str) -> None:
    answer = AnswerText(tokenizer)
    pieces, _ = feed(answer, [*tokenizer.encode("done"), tokenizer.special(f"<|{end}|>")])
    assert ("".join(pieces), answer.finished) == ("done", True)


@given(
    stops=st.lists(st.text("ab🎉", min_size=1, max_size=4), min_size=1, max_size=4),
    pieces=st.lists(st.text("abc🎉", max_size=5), max_size=12),
)
def test_stop_texts_cut_exactly_before_the_first_that_appears(stops: list[str], pieces: list[str]) -> None:
    whole, seen, out = "".join(pieces), "", StopTexts(stops)
    for piece in pieces:
        seen += out.push(piece)
        assert not any(stop in seen for stop in stops)
    seen += out.rest()
    # The text ends before the stop that completes first. If several complete at once, it ends before the one that begins first.
    ends = {stop: whole.find(stop) + len(stop) for stop in stops if stop in whole}
    assert out.hit == bool(ends)
    if not ends:
        assert seen == whole
    else:
        assert whole.startswith(seen)
        assert any(whole[len(seen) :].startswith(stop) for stop in stops)


def test_text_that_may_begin_a_stop_is_held_back() -> None:
    out = StopTexts(["END"])
    assert [out.push(p) for p in ("go ", "E", "N", "X", "EN", "D more")] == ["go ", "", "", "ENX", "", ""]
    assert out.hit
    assert out.rest() == ""

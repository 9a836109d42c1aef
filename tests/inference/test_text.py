"""Tokens become text. It never shows an incomplete character, a special token or a part of a stop text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.engine.request import FORCED, SAMPLED, Logprobs
from nanochat.tokenizer import Tokenizer
from services.inference.text import AnswerText, Delta, StopTexts, ToolCall

WORDS = ["naïve 日本語 🎉🚀", "café\n", " 12 + 7 = ", "", "👩‍🔬 e\u0301", "plain words, and more of them"]


def feed(answer: AnswerText, tokens: list[int], forced: Sequence[int] = ()) -> tuple[list[str], list[ToolCall]]:
    """The pieces of text and the tool calls, up to the end of the answer, including the flush.

    `forced`: the positions of tokens that the calculator put there.
    """
    deltas: list[Delta] = []
    for i, token in enumerate(tokens):
        deltas.append(answer.push(token, FORCED if i in forced else SAMPLED))
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
    tokens = tokenizer.encode("12 + 7 is ") + span(tokenizer, "python", "12+7")
    result = span(tokenizer, "output", "19")
    forced = range(len(tokens), len(tokens) + len(result))
    tokens += [*result, *tokenizer.encode("19."), tokenizer.special("<|assistant_end|>"), *tokenizer.encode("never seen")]
    answer = AnswerText(tokenizer)
    pieces, calls = feed(answer, tokens, forced)
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


def test_an_output_that_the_model_made_up_is_text(tokenizer: Tokenizer) -> None:
    invented = [*tokenizer.encode("so "), *span(tokenizer, "output", "20"), *tokenizer.encode(".")]
    pieces, calls = feed(AnswerText(tokenizer), invented)
    assert ("".join(pieces), calls) == ("so 20.", [])
    refused = [*span(tokenizer, "python", "import os"), *span(tokenizer, "output", "20")]
    pieces, calls = feed(AnswerText(tokenizer), refused)
    assert ("".join(pieces), calls) == ("20", [ToolCall("import os")])


def test_an_output_token_inside_a_call_is_part_of_the_code(tokenizer: Tokenizer) -> None:
    """As in the engine, which collects all tokens of a call until its end."""
    tokens = [tokenizer.special("<|python_start|>"), *tokenizer.encode("1"), *span(tokenizer, "output", "2")]
    tokens += [tokenizer.special("<|python_end|>"), *tokenizer.encode("x")]
    pieces, calls = feed(AnswerText(tokenizer), tokens)
    assert ("".join(pieces), calls) == ("x", [ToolCall("1<|output_start|>2<|output_end|>")])


@pytest.mark.parametrize("mask", [SAMPLED, FORCED])
def test_a_stop_token_ends_the_text_if_the_model_sampled_it(tokenizer: Tokenizer, mask: int) -> None:
    answer = AnswerText(tokenizer, stop_ids=tokenizer.encode("b"))
    [token] = tokenizer.encode("b")
    assert answer.push(token, mask).text == ""
    assert answer.finished == (mask == SAMPLED)


@given(text=st.text("ab🎉é", max_size=12), stop=st.text("ab🎉é", min_size=1, max_size=3))
def test_scored_tokens_end_where_the_text_does(tokenizer: Tokenizer, text: str, stop: str) -> None:
    tokens, answer = tokenizer.encode(text), AnswerText(tokenizer, [stop])
    shown, scored = "", []
    for token in tokens:
        delta = answer.push(token, SAMPLED, Logprobs(-0.5, {}))
        shown, scored = shown + delta.text, scored + delta.scored
        if answer.finished:
            break
    delta = answer.flush()
    shown, scored = shown + delta.text, scored + delta.scored
    assert [one.token for one in scored] == tokens[: len(scored)]
    told = b"".join(tokenizer.bpe.token_bytes(one.token) for one in scored)
    assert told.startswith(shown.encode())
    last = len(tokenizer.bpe.token_bytes(scored[-1].token)) if scored else 0
    assert len(told) - last < len(shown.encode()) or not shown


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

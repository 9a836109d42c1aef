"""The tokenizer and the chat template of an exported folder give the ids that ours gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.interchange import hf
from nanochat.tokenizer import Tokenizer
from tests.nanochat.interchange.conftest import Sealed

CALL = [
    {"type": "text", "text": "Let me see: "},
    {"type": "python", "text": "12+30"},
    {"type": "python_output", "text": "42"},
    {"type": "text", "text": " It is 42."},
]

pieces = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.from_regex(r"\d{1,9}", fullmatch=True),
    st.text(" \t\r\n\u00a0\u2003\u3000\u200b", max_size=6),
    st.sampled_from(
        ["the quick brown fox", "don't", "WE'LL", "日本語", "👩‍🔬🎉", "naïve", "e\u0301", "ﬁ", "١٢٣", "Ⅷ", "\u0000", "ſ'ſ"]
    ),
)
# Without special tokens, whose names Hypothesis takes from our own source now and then; `controls` has them on purpose.
texts = st.lists(pieces, max_size=8).map("".join).filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))
controls = st.lists(st.one_of(pieces, st.sampled_from(SPECIAL_TOKENS)), max_size=8).map("".join)


@pytest.fixture(scope="module")
def theirs(sealed: Callable[[str], Sealed], tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("exported") / "hf"
    hf.write(sealed("speedrun").gpt, sealed("speedrun").tokenizer, folder)
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=300, deadline=None)
@given(text=controls)
@example("<|bos|><|user_start|>x<|user_end|>")
@example("a<|bos|>b <|assistant_end|>\n")
def test_text_has_the_same_ids(theirs: Any, tokenizer: Tokenizer, text: str) -> None:
    """With `split_special_tokens`, names of special tokens are text, as they always are for us."""
    ids = theirs(text, split_special_tokens=True).input_ids
    assert ids == tokenizer.encode(text)
    assert theirs.decode(ids) == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(parts=st.lists(st.one_of(texts, st.sampled_from(SPECIAL_TOKENS)), max_size=6))
def test_special_tokens_are_tokens_when_they_are_asked_for(theirs: Any, tokenizer: Tokenizer, parts: list[str]) -> None:
    """Two texts in a row are one text, so a special token goes between them."""
    parts = [piece for part in parts for piece in ((part,) if part in SPECIAL_TOKENS else (part, "<|user_end|>"))]
    parts = [part for part in parts if part in SPECIAL_TOKENS or not any(name in part for name in SPECIAL_TOKENS)]
    expected = [i for part in parts for i in ([tokenizer.special(part)] if part in SPECIAL_TOKENS else tokenizer.encode(part))]
    assert theirs("".join(parts)).input_ids == expected


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


parts = st.lists(st.tuples(st.sampled_from(["text", "python", "python_output"]), texts), max_size=5).map(
    lambda drawn: [
        {"type": kind, "text": text}
        for i, (kind, text) in enumerate(drawn)
        if kind != "text" or i == 0 or drawn[i - 1][0] != "text"
    ]
)
turns = st.lists(st.tuples(texts, st.one_of(texts, parts)), max_size=3)


@settings(max_examples=150, deadline=None)
@given(system=st.none() | texts, turns=turns, last=texts)
@example(None, [], "Who are you?")
@example("Be brief.\n", [(" What is 12 + 30?\n", CALL), ("thanks", "You're welcome. ")], " bye ")
def test_a_conversation_has_the_same_ids(theirs: Any, tokenizer: Tokenizer, system: Any, turns: Any, last: str) -> None:
    talk: Any = [] if system is None else [{"role": "system", "content": system}]
    for question, answer in turns:
        talk += [user(question), assistant(answer)]
    talk.append(user(last))
    asked = theirs.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
    assert asked == tokenizer.render_for_completion({"messages": talk})
    whole = [*talk, assistant(CALL)]
    assert theirs.apply_chat_template(whole, return_dict=False) == tokenizer.render({"messages": whole}, 100_000)[0]


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        ([{"role": "system", "content": "x"}], "followed by a user message"),
        ([assistant("hi")], "roles alternate"),
        ([user("a"), user("b")], "must be from assistant"),
        ([user("a<|assistant_end|>")], r"contains <\|assistant_end\|>"),
        ([{"role": "system", "content": "<|bos|>"}, user("a")], r"system message contains <\|bos\|>"),
        ([user("a"), assistant([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), user("c")], "join them"),
        ([user("a"), assistant([{"type": "image", "text": "a"}]), user("c")], "unknown type image"),
        ([user("a"), assistant("b")], "last message must be from the user"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "must be a string"),
    ],
)
def test_what_would_get_other_ids_is_refused(theirs: Any, talk: Any, said: str) -> None:
    with pytest.raises(jinja2.exceptions.TemplateError, match=said):
        theirs.apply_chat_template(talk, add_generation_prompt=True)


def test_names_and_ends_are_ours(theirs: Any, tokenizer: Tokenizer) -> None:
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos, tokenizer.special("<|assistant_end|>"))
    ids = [tokenizer.bos, *tokenizer.encode("hi"), tokenizer.special("<|assistant_end|>")]
    assert theirs.decode(ids, skip_special_tokens=True) == "hi"

"""One test for each parameter of the chat route, by the official OpenAI client: what it changes in the answer."""

from __future__ import annotations

from typing import Any

import pytest

from nanochat.tokenizer import Tokenizer
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SCRIPTS, SELF, WHO
from tests.inference.server import Server


def ask(server: Server, question: str, **params: Any) -> Any:
    wanted = {"model": "default", "temperature": 0, "messages": [{"role": "user", "content": question}], **params}
    return server.openai().chat.completions.create(**wanted)


def said(server: Server, question: str, **params: Any) -> str:
    return str(ask(server, question, **params).choices[0].message.content)


def test_temperature_is_greedy_when_tiny(server: Server) -> None:
    for temperature in (0, 1e-39, 1e-6):
        assert said(server, WHO, temperature=temperature) == SELF
    hot = {"temperature": 2.0, "n": 8, "max_tokens": 20}
    assert len({c.message.content for c in ask(server, FOREVER, **hot).choices}) > 1


@pytest.mark.parametrize("narrow", [{"top_p": 1e-46}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}])
def test_narrow_sampling_is_greedy_at_any_temperature(server: Server, narrow: dict[str, Any]) -> None:
    assert said(server, WHO, temperature=2.0, **narrow) == SELF


def test_top_k_minus_one_is_off(server: Server) -> None:
    hot = {"temperature": 2.0, "seed": 3, "max_tokens": 20}
    said(server, COUNT, **hot)  # the prompt is in the cache now; another division of it would round differently
    assert said(server, COUNT, extra_body={"top_k": -1}, **hot) == said(server, COUNT, **hot)


def test_logit_bias_favours_and_bans_tokens(server: Server, tokenizer: Tokenizer) -> None:
    [z], first = tokenizer.encode("z"), tokenizer.encode(SELF)[0]
    assert said(server, WHO, logit_bias={str(z): 100}, max_tokens=3) == "zzz"
    assert not said(server, WHO, logit_bias={str(first): -100}, max_tokens=5).startswith(SELF[0])


def test_a_frequency_penalty_ends_a_repetition(server: Server) -> None:
    assert said(server, FOREVER, max_tokens=60) == ("la " * 60)[: len(said(server, FOREVER, max_tokens=60))]
    changed = said(server, FOREVER, max_tokens=60, frequency_penalty=2.0)
    assert not ("la " * 60).startswith(changed)


@pytest.mark.parametrize("penalty", [{"presence_penalty": 2.0}, {"extra_body": {"repetition_penalty": 1.5}}])
def test_penalties_change_what_is_sampled(server: Server, penalty: dict[str, Any]) -> None:
    hot = {"temperature": 2.0, "seed": 5, "n": 8, "max_tokens": 30}
    plain, penalized = ask(server, FOREVER, **hot), ask(server, FOREVER, **hot, **penalty)
    assert [c.message.content for c in plain.choices] != [c.message.content for c in penalized.choices]


def test_a_presence_penalty_leaves_the_first_token_alone(server: Server) -> None:
    hot = {"temperature": 2.0, "seed": 5, "n": 8, "max_tokens": 1}
    ask(server, FOREVER, **hot)
    plain, penalized = ask(server, FOREVER, **hot), ask(server, FOREVER, **hot, presence_penalty=2.0)
    assert [c.message.content for c in plain.choices] == [c.message.content for c in penalized.choices]


def test_stop_token_ids(server: Server, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(NUMBERS)
    stop = tokens[10]
    answer = ask(server, COUNT, extra_body={"stop_token_ids": [stop]})
    assert answer.choices[0].message.content == tokenizer.decode(tokens[: tokens.index(stop)])
    assert answer.choices[0].finish_reason == "stop"


def test_an_answer_of_exactly_max_tokens_ends_by_itself(server: Server, tokenizer: Tokenizer) -> None:
    length = len(tokenizer.encode(SELF))
    for limit, reason in ((length - 1, "length"), (length, "stop"), (length + 1, "stop")):
        choice = ask(server, WHO, max_tokens=limit).choices[0]
        assert (choice.finish_reason, choice.message.content == SELF) == (reason, limit >= length)


@pytest.mark.parametrize("question", [WHO, SCRIPTS])
def test_logprobs(server: Server, question: str) -> None:
    choice = ask(server, question, logprobs=True, top_logprobs=3).choices[0]
    content = choice.logprobs.content
    assert bytes(b for entry in content for b in entry.bytes).decode() == choice.message.content
    for entry in content:
        assert -0.7 < entry.logprob <= 0, "memorized"
        assert len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].token == entry.token
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
    chunks = ask(server, question, logprobs=True, top_logprobs=3, stream=True)
    streamed = [e for c in chunks for choice in c.choices if choice.logprobs for e in choice.logprobs.content]
    assert [e.bytes for e in streamed] == [e.bytes for e in content]
    assert ask(server, question, logprobs=True, max_tokens=1).choices[0].logprobs.content[0].top_logprobs == []
    assert ask(server, question, max_tokens=1).choices[0].logprobs is None


def test_logprobs_end_where_a_stop_text_cuts(server: Server) -> None:
    choice = ask(server, COUNT, stop=" 7", logprobs=True).choices[0]
    assert bytes(b for entry in choice.logprobs.content for b in entry.bytes).decode().startswith(choice.message.content)
    assert len(choice.logprobs.content) <= len(choice.message.content) + 1


def test_the_answer_can_be_begun_for_the_model(server: Server, tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode(SELF)
    cut = next(k for k in range(6, len(tokens)) if tokenizer.encode(tokenizer.decode(tokens[:k])) == tokens[:k])
    begun = tokenizer.decode(tokens[:cut])
    messages = [{"role": "user", "content": WHO}, {"role": "assistant", "content": begun}]
    for more in ({}, {"add_generation_prompt": False}):
        body = {"continue_final_message": True, **more}
        assert begun + said(server, WHO, messages=messages, extra_body=body) == SELF


def test_usage_in_every_chunk(server: Server) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = ask(server, WHO, stream=True, stream_options=options)
    counts = [c.usage.completion_tokens for c in chunks]
    assert counts == sorted(counts)
    assert last.usage.completion_tokens == counts[-1] > 5


def test_a_long_conversation_is_truncated_when_asked(server: Server, tokenizer: Tokenizer) -> None:
    old = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y" * 500}] * 3
    messages = [*old, {"role": "user", "content": WHO}]
    answer = ask(server, WHO, messages=messages, extra_body={"truncate_prompt_tokens": -1})
    assert answer.choices[0].message.content
    alone = len(tokenizer.render_for_completion({"messages": [{"role": "user", "content": WHO}]}))
    answer = ask(server, WHO, messages=messages, extra_body={"truncate_prompt_tokens": alone + 3})
    assert (answer.usage.prompt_tokens, answer.choices[0].message.content) == (alone, SELF)


@pytest.mark.parametrize(
    "ignored",
    [
        {"user": "me"},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"service_tier": "flex"},
        {"safety_identifier": "x"},
        {"prompt_cache_key": "x"},
    ],
)
def test_parameters_without_effect_are_accepted(server: Server, ignored: dict[str, Any]) -> None:
    assert said(server, WHO, **ignored) == SELF

"""The official OpenAI client against the running service: answers, streams, usage, stop texts, the calculator."""

from __future__ import annotations

from typing import Any

import pytest
from openai import NotFoundError

from nanochat.tokenizer import Tokenizer
from tests.inference.heart import CODE, COUNT, GLYPHS, NUMBERS, SCRIPTS, SELF, SUM, SUMMED, VALUE, WHO
from tests.inference.server import Server

MODEL = "step_000200"


def ask(server: Server, question: str, **params: Any) -> Any:
    wanted = {"model": "default", "temperature": 0, **params}
    return server.openai().chat.completions.create(messages=[{"role": "user", "content": question}], **wanted)


def pieces(stream: Any, index: int = 0) -> list[str]:
    return [c.delta.content for chunk in stream for c in chunk.choices if c.index == index and c.delta.content]


def test_an_answer_with_its_usage(server: Server, tokenizer: Tokenizer) -> None:
    answer = ask(server, WHO)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", SELF, "stop")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    prompt = tokenizer.render_for_completion({"messages": [{"role": "user", "content": WHO}]})
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(tokenizer.encode(SELF))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_the_same_piece_by_piece(server: Server) -> None:
    chunks = list(ask(server, WHO, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert len({c.id for c in chunks}) == 1
    assert "".join(pieces(chunks)) == SELF
    assert len(pieces(chunks)) > 5
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(c.usage is None for c in chunks)


def test_usage_comes_last_in_a_stream_that_asks_for_it(server: Server) -> None:
    *chunks, last = ask(server, WHO, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage == ask(server, WHO).usage
    assert all(c.usage is None for c in chunks)


def test_a_stream_ends_with_done(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": WHO}], "stream": True, "temperature": 0}
    response = server.http.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


def test_characters_of_several_tokens_are_never_broken(server: Server) -> None:
    said = pieces(ask(server, SCRIPTS, stream=True))
    assert "".join(said) == GLYPHS == ask(server, SCRIPTS).choices[0].message.content
    assert not any("\ufffd" in piece for piece in said)


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_the_length_limit(server: Server, limit: str) -> None:
    answer = ask(server, COUNT, **{limit: 7})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7
    assert NUMBERS.startswith(answer.choices[0].message.content)


@pytest.mark.parametrize(("stop", "left"), [("7", "1 2 3 4 5 6 "), ([" 12 1", "zzz"], NUMBERS.split(" 12 1")[0])])
def test_stop_texts(server: Server, stop: Any, left: str) -> None:
    answer = ask(server, COUNT, stop=stop)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (left, "stop")
    assert "".join(pieces(ask(server, COUNT, stop=stop, stream=True))) == left
    server.wait_until_idle()


def test_text_held_back_for_a_stop_that_never_comes_is_shown(server: Server) -> None:
    assert ask(server, WHO, stop=["heart.!"]).choices[0].message.content == SELF


def test_the_calculator_runs_and_its_tokens_stay_out_of_the_text(server: Server) -> None:
    message = ask(server, SUM).choices[0].message
    assert message.content == SUMMED
    assert message.model_extra["calculator"] == [{"index": 0, "code": CODE, "output": VALUE}]
    chunks = list(ask(server, SUM, stream=True))
    assert "".join(pieces(chunks)) == SUMMED
    told = [c.choices[0].delta.model_extra["calculator"] for c in chunks if "calculator" in c.choices[0].delta.model_extra]
    assert told == [[{"index": 0, "code": CODE, "output": VALUE}]]


def test_several_choices(server: Server) -> None:
    answer = ask(server, WHO, n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert [c.message.content for c in answer.choices] == [SELF] * 3
    chunks = list(ask(server, WHO, n=3, stream=True))
    assert [("".join(pieces(chunks, i))) for i in range(3)] == [SELF] * 3
    assert sorted(c.choices[0].index for c in chunks if c.choices[0].finish_reason) == [0, 1, 2]


def test_a_seed_repeats_an_answer_and_choices_differ(server: Server) -> None:
    def sampled(seed: int) -> list[str]:
        answer = ask(server, COUNT, n=4, seed=seed, temperature=2.0, max_tokens=20)
        return [c.message.content for c in answer.choices]

    assert sampled(7) == sampled(7)
    assert len(set(sampled(7))) > 1
    assert sampled(7) != sampled(8)


def test_top_k_one_is_greedy_at_any_temperature(server: Server) -> None:
    assert ask(server, WHO, temperature=2.0, extra_body={"top_k": 1}).choices[0].message.content == SELF
    assert ask(server, WHO, temperature=2.0, top_p=0.01).choices[0].message.content == SELF


def test_content_as_text_parts_and_earlier_turns(server: Server) -> None:
    answer = server.openai().chat.completions.create(
        model=MODEL,
        temperature=0,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Who are "}, {"type": "text", "text": "you?"}]}],
    )
    assert answer.choices[0].message.content == SELF
    # A client may send an answer back unchanged, with its nulls and the field `calculator`.
    earlier = ask(server, SUM).choices[0].message.model_dump()
    turns: list[Any] = [{"role": "user", "content": SUM}, earlier, {"role": "user", "content": WHO}]
    again = server.openai().chat.completions.create(model=MODEL, messages=turns, max_tokens=3, user="someone")
    assert again.usage is not None
    assert answer.usage is not None
    assert again.usage.prompt_tokens > answer.usage.prompt_tokens


def test_a_system_message_comes_before_the_first_turn(server: Server, tokenizer: Tokenizer) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": WHO}]
    answer = server.openai().chat.completions.create(model=MODEL, messages=messages, max_tokens=1)
    expected = tokenizer.render_for_completion({"messages": messages})
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(expected)


def test_models_are_listed(server: Server) -> None:
    listed = server.openai().models.list().data
    assert [m.id for m in listed] == [MODEL]
    assert server.openai().models.retrieve(MODEL).owned_by == "nanochat"
    assert (listed[0].model_extra or {})["max_model_len"] == 1024
    with pytest.raises(NotFoundError) as caught:
        server.openai().models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found"


def test_health_ready_and_metrics_need_no_key(server: Server) -> None:
    ask(server, WHO)
    for path in ("/health", "/ready", "/metrics"):
        assert server.http.get(path, headers={"Authorization": ""}).status_code == 200
    assert server.metric("generation_tokens_total", model_name=MODEL) > 0
    assert server.metric("prompt_tokens_total", model_name=MODEL) > 0
    assert server.metric("request_success_total", finished_reason="stop") > 0
    assert server.metric("time_to_first_token_seconds_count") > 0
    assert server.metric("model_loaded_info", model_name=MODEL) == 1

"""The engine compared with the plain model, and its tool loop with a model that follows a script."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from nanochat.engine import Engine, PromptTooLong, Sampling
from nanochat.model import GPTConfig
from tests.nanochat.engine.switches import MODERN

pytestmark = pytest.mark.usefixtures("one_core")
PROMPT = [3, 14, 15, 92, 65, 35]
GREEDY = Sampling(temperature=0)


def naive(model, prompt, steps, ends=()):
    """Greedy decoding without a cache: the whole sequence goes through the model for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            token = int(model(torch.tensor([ids]))[0, -1].argmax())
            if token in ends:
                break
            ids.append(token)
    return ids[len(prompt) :]


def ends(tokenizer):
    return {tokenizer.bos, tokenizer.special("<|assistant_end|>")}


def run(engine):
    """Run all requests to the end. Returns the outputs of every step."""
    steps = []
    while engine.busy:
        steps.append(engine.step())
        assert len(steps) < 5000
    return steps


def assert_nothing_is_held(engine):
    assert not engine.busy
    assert engine.blocks.free == engine.blocks.count


# -- equal to the plain model --


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize("seed", range(2))
def test_greedy_is_the_same_alone_and_together(make_model, tokenizer, seed, switches):
    """Prompts have many lengths and common beginnings; they run in small chunks, with few blocks, and one after the other."""
    model = make_model(seed=seed, **switches)
    rng = random.Random(seed)
    common = [rng.randrange(400) for _ in range(32)]
    prompts = [
        [*common[: rng.randrange(len(common))], *(rng.randrange(400) for _ in range(rng.randrange(1, 20)))] for _ in range(12)
    ]
    expected = [naive(model, prompt, 20, ends(tokenizer)) for prompt in prompts]
    for how in ({}, {"step_tokens": 5}, {"cache_tokens": model.config.sequence_len, "max_rows": 8}, {"max_rows": 1}):
        engine = Engine(model, tokenizer, dtype=torch.float32, **how)
        requests = [engine.add(prompt, GREEDY, max_tokens=20, n=1 + i % 3) for i, prompt in enumerate(prompts)]
        run(engine)
        for request, answer in zip(requests, expected, strict=True):
            assert [row.made for row in request.rows] == [answer] * len(request.rows), how
        assert_nothing_is_held(engine)
        if "cache_tokens" in how:
            assert engine.scheduler.preemptions > 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_arrivals_and_cancellations_leave_the_others_as_they_are_alone(make_model, tokenizer, data):
    context = data.draw(st.sampled_from([64, 60, 50]))  # also contexts that are no multiple of a block
    model = make_model(seq_len=context)
    sizes = {"cache_tokens": data.draw(st.sampled_from([context, 80])), "step_tokens": data.draw(st.integers(1, 40))}
    engine = Engine(model, tokenizer, dtype=torch.float32, max_rows=6, **sizes)
    prompt = st.lists(st.integers(0, 3), min_size=1, max_size=context - 1)
    kept, alive = [], []
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.integers(0, 3))
        if action == 0 or not alive:
            tokens, n = data.draw(prompt), data.draw(st.integers(1, 3))
            request = engine.add(
                tokens, GREEDY, max_tokens=data.draw(st.integers(1, 12)), n=n, key=data.draw(st.sampled_from("ab"))
            )
            alive.append(request)
            kept.append(request)
        elif action == 1:
            cancelled = alive.pop(data.draw(st.integers(0, len(alive) - 1)))
            engine.cancel(cancelled)
            kept = [r for r in kept if r is not cancelled or all(row.finish != "cancelled" for row in r.rows)]
        else:
            engine.step()
    run(engine)
    assert_nothing_is_held(engine)
    for request in kept:
        answer = naive(model, request.prompt, request.max_tokens, ends(tokenizer))  # max_tokens is bounded by the context
        assert all(row.made == answer for row in request.rows)


def test_samples_do_not_depend_on_what_runs_beside_them(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32)
    alone, _ = engine.generate_batch(PROMPT, num_samples=1, max_tokens=30, seed=5)
    together, _ = engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=5)
    again, _ = engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=5)
    assert together[0] == alone[0]
    assert together == again
    assert engine.generate_batch(PROMPT, num_samples=6, max_tokens=30, seed=6)[0] != together


def test_each_row_samples_its_own_first_token(make_model, tokenizer):
    firsts, _ = Engine(make_model(), tokenizer).generate_batch(PROMPT, num_samples=32, max_tokens=1, temperature=1.5)
    assert len({tuple(row) for row in firsts}) > 3


def test_rows_finish_at_different_times_and_the_others_continue(make_model, tokenizer):
    """Finished rows leave the batch. The other rows continue with the same tokens as if each were alone."""
    model = make_model(tokenizer.vocab_size)
    with torch.no_grad():  # make ends likely, so that rows end at many different steps
        model.lm_head.weight[tokenizer.bos] *= 3
    engine = Engine(model, tokenizer, dtype=torch.float32)
    how = {"max_tokens": 40, "seed": 2, "temperature": 1.5}
    tokens, _ = engine.generate_batch(PROMPT, num_samples=12, **how)
    assert len({len(t) for t in tokens}) > 3
    for row in (0, 5, 11):  # the same row in a smaller batch
        assert engine.generate_batch(PROMPT, num_samples=row + 1, **how)[0][row] == tokens[row]


# -- scheduling --


def test_all_rows_decode_in_one_step_and_late_ones_join(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32)
    first = engine.add(PROMPT, GREEDY, max_tokens=20, n=2)
    engine.step()
    second = engine.add(PROMPT[:3], GREEDY, max_tokens=20)
    engine.step()
    assert {output.row.request for output in engine.step()} == {first, second}


@pytest.mark.parametrize("answers", [1, 3])
def test_a_short_request_of_another_key_is_not_kept_waiting_by_long_ones(make_model, tokenizer, answers):
    """Long requests have taken all rows. The newest ones give way, and lose nothing but time."""
    model = make_model(seq_len=128)
    engine = Engine(model, tokenizer, dtype=torch.float32, step_tokens=32, max_rows=8)
    long = [engine.add([i, *range(60)], GREEDY, max_tokens=28, key="long") for i in range(16)]
    while len(engine.scheduler.running) < 8:
        engine.step()
    short = engine.add([1, 2], GREEDY, max_tokens=2, n=answers, key="short")
    outputs = [output for _ in range(3) for output in engine.step()]
    assert {output.row for output in outputs if output.row.request is short} == set(short.rows)
    assert engine.scheduler.preemptions == answers
    run(engine)
    assert all(r.rows[0].made == naive(model, r.prompt, 28, ends(tokenizer)) for r in long[:8])


def test_keys_with_equally_many_rows_do_not_preempt_each_other(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32, max_rows=4)
    for key in "abcdefgh":
        engine.add(PROMPT, GREEDY, max_tokens=4, key=key)
    run(engine)
    assert engine.scheduler.preemptions == 0


def test_a_small_model_runs_on_one_thread_and_gives_the_others_back(make_model, tokenizer, monkeypatch):
    seen = set()
    model = make_model()
    model.blocks[0].register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Engine(model, tokenizer, dtype=torch.float32).generate_batch(PROMPT, max_tokens=2)
        assert (seen, torch.get_num_threads()) == ({1}, 2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as its user wishes
        Engine(model, tokenizer, dtype=torch.float32).generate_batch(PROMPT, max_tokens=2)
        assert seen == {1, 2}
    finally:
        torch.set_num_threads(before)


def test_a_prompt_seen_before_is_not_computed_again(make_model, tokenizer):
    engine = Engine(make_model(seq_len=128), tokenizer, dtype=torch.float32, step_tokens=16)
    prompt = list(range(100))
    engine.add(prompt, GREEDY, max_tokens=2)
    cold = len(run(engine))
    engine.add(prompt, GREEDY, max_tokens=2)
    warm = len(run(engine))
    assert cold >= 7 + 2
    assert warm <= 1 + 2
    engine.refresh()
    engine.add(prompt, GREEDY, max_tokens=2)
    assert len(run(engine)) == cold


def test_new_weights_are_taken_over(make_model, tokenizer):
    model = make_model()
    engine = Engine(model, tokenizer, dtype=torch.bfloat16)
    before = engine.generate_batch(PROMPT, max_tokens=12, temperature=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    engine.refresh()
    assert engine.generate_batch(PROMPT, max_tokens=12, temperature=0) != before
    assert engine.generate_batch(PROMPT, max_tokens=12, temperature=0) == Engine(
        model, tokenizer, dtype=torch.bfloat16
    ).generate_batch(PROMPT, max_tokens=12, temperature=0)
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_requests_end_as_soon_as_their_rows_have(make_model, tokenizer):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32)
    long = engine.add(PROMPT, GREEDY, max_tokens=12)
    short = engine.add(PROMPT, GREEDY, max_tokens=2, n=2)
    assert list(engine.finished()) == [short, long]


# -- limits --


def test_the_context_is_respected(make_model, tokenizer):
    engine = Engine(make_model(seq_len=16), tokenizer, dtype=torch.float32)
    tokens, _ = engine.generate_batch([5] * 12, max_tokens=100, temperature=0)
    assert len(tokens[0]) <= 4
    tokens, _ = engine.generate_batch([5] * 15, max_tokens=100, temperature=0)
    assert len(tokens[0]) <= 1
    with pytest.raises(PromptTooLong, match="16"):
        engine.add([5] * 16, GREEDY, max_tokens=1)
    with pytest.raises(ValueError, match="empty"):
        engine.add([], GREEDY, max_tokens=1)
    with pytest.raises(ValueError, match="token 100000 is outside"):
        engine.add([5, 100_000], GREEDY, max_tokens=1)
    assert_nothing_is_held(engine)


@pytest.mark.parametrize("context", [16, 17, 50, 60])
def test_a_full_context_with_several_answers_ends(make_model, tokenizer, context):
    engine = Engine(make_model(seq_len=context), tokenizer, dtype=torch.float32, cache_tokens=context)
    request = engine.add([5] * (context - 1), GREEDY, max_tokens=9, n=3)
    run(engine)
    assert request.finished
    assert_nothing_is_held(engine)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n": 0}, "n and max_tokens"),
        ({"max_tokens": 0}, "n and max_tokens"),
        ({"sampling": Sampling(logprobs=-1)}, "logprobs"),
        ({"sampling": Sampling(logprobs=10**6)}, "logprobs"),
        ({"prompt": [1.5]}, "token 1.5"),
        ({"sampling": Sampling(logit_bias={10**6: 1.0})}, "token 1000000"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_it_is_queued(make_model, tokenizer, changes, named):
    engine = Engine(make_model(), tokenizer, dtype=torch.float32)
    asked = {"prompt": PROMPT, "sampling": GREEDY, "max_tokens": 3, **changes}
    with pytest.raises(ValueError, match=named):
        engine.add(asked.pop("prompt"), asked.pop("sampling"), **asked)
    assert_nothing_is_held(engine)


def test_stop_ends_it(make_model, tokenizer):
    asked = []
    engine = Engine(make_model(), tokenizer)
    tokens, _ = engine.generate_batch(PROMPT, max_tokens=50, seed=3, stop=lambda: asked.append(1) or len(asked) > 2)
    assert len(tokens[0]) <= 2
    assert_nothing_is_held(engine)


def test_generation_leaves_gradients_as_they_were(make_model, tokenizer):
    model = make_model()
    engine = Engine(model, tokenizer)
    engine.add(PROMPT, GREEDY, max_tokens=5)
    engine.step()
    assert torch.is_grad_enabled()
    model(torch.tensor([PROMPT]), torch.tensor([PROMPT])).backward()
    assert engine.step()


def test_logprobs_come_with_each_sampled_token(make_model, tokenizer):
    model = make_model()
    engine = Engine(model, tokenizer, dtype=torch.float32)
    engine.add(PROMPT, Sampling(temperature=0, logprobs=3), max_tokens=4)
    outputs = [output for step in run(engine) for output in step if output.token is not None]
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT]))[0, -1].log_softmax(-1)
    assert outputs[0].logprobs.token == pytest.approx(expected.max().item(), abs=1e-4)
    assert len(outputs[0].logprobs.top) == 3


# -- the tool loop, with a model that follows a script --


class Scripted(nn.Module):
    """A model that predicts the tokens of `scripts[row]` in turn, whatever its input is. It records its inputs."""

    def __init__(self, vocab_size, scripts):
        super().__init__()
        self.config = GPTConfig(256, vocab_size, 1, 1, 1, vocab_size)
        self.lm_head = nn.Identity()
        self.scripts, self.step, self.fed = scripts, 0, []

    def get_device(self):
        return torch.device("cpu")

    def hidden(self, ids, cache):
        self.fed.append(ids[:, -1].tolist())
        says = [s[self.step] if self.step < len(s) else 0 for s in self.scripts[: ids.size(0)]]
        self.step += 1
        return nn.functional.one_hot(torch.tensor(says), self.config.vocab_size)[:, None].float() * 30


def spoken(tokenizer, text):
    """The ids of a text in which special tokens are written by name."""
    ids = []
    for piece in text.replace("<|", "\0<|").replace("|>", "|>\0").split("\0"):
        ids += [tokenizer.special(piece)] if piece.startswith("<|") else tokenizer.encode(piece)
    return ids


def run_script(tokenizer, *texts, **how):
    model = Scripted(tokenizer.vocab_size, [spoken(tokenizer, t) for t in texts])
    tokens, masks = Engine(model, tokenizer).generate_batch(
        [tokenizer.bos], num_samples=len(texts), max_tokens=how.get("max_tokens", 100), temperature=0
    )
    return model, tokens, masks


def test_a_tool_call_is_answered_with_forced_tokens(tokenizer):
    answer = spoken(tokenizer, "<|output_start|>24<|output_end|>")
    call = spoken(tokenizer, "So <|python_start|>48/2<|python_end|>")
    said = tokenizer.encode("xxxxxxxx")[:1] * len(answer)  # the answer replaces these tokens
    model = Scripted(tokenizer.vocab_size, [[*call, *said, *spoken(tokenizer, " done<|assistant_end|>never")]])
    tokens, masks = Engine(model, tokenizer).generate_batch([tokenizer.bos], max_tokens=100, temperature=0)
    assert tokens == [[*call, *answer, *tokenizer.encode(" done")]]
    assert masks == [[1] * len(call) + [0] * len(answer) + [1] * len(tokenizer.encode(" done"))]
    fed = [t for step in model.fed[1:] for t in step]
    assert fed == tokens[0]  # the model continues from the forced tokens


@pytest.mark.parametrize("call", ["rm -rf", "1/0", "2**9", ""])
def test_a_call_that_is_not_understood_gets_no_answer(tokenizer, call):
    _, tokens, masks = run_script(tokenizer, f"<|python_start|>{call}<|python_end|>ok<|assistant_end|>")
    assert tokens == [spoken(tokenizer, f"<|python_start|>{call}<|python_end|>ok")]
    assert masks == [[1] * len(tokens[0])]


def test_an_end_without_a_start_and_an_unfinished_call_are_harmless(tokenizer):
    _, tokens, _ = run_script(tokenizer, "<|python_end|>a<|python_start|>1+1<|assistant_end|>")
    assert tokens == [spoken(tokenizer, "<|python_end|>a<|python_start|>1+1")]


@pytest.mark.parametrize("end", ["<|assistant_end|>", "<|bos|>"])
def test_an_end_is_no_part_of_the_answer(tokenizer, end):
    engine = Engine(Scripted(tokenizer.vocab_size, [spoken(tokenizer, f"a{end}")]), tokenizer)
    request = engine.add([tokenizer.bos], GREEDY, max_tokens=100)
    outputs = [output for step in run(engine) for output in step]
    assert [(o.token, o.mask, o.finish) for o in outputs] == [(*tokenizer.encode("a"), 1, None), (None, 0, "stop")]
    assert request.finished


@pytest.mark.parametrize(("said", "reason"), [("aaaaaaaaaaaaaaaaaaaa", "length"), ("aa<|assistant_end|>", "stop")])
def test_at_the_limit_an_answer_that_was_over_says_stop(tokenizer, said, reason):
    script = spoken(tokenizer, said)
    limit = script.index(tokenizer.special("<|assistant_end|>")) if reason == "stop" else 2
    engine = Engine(Scripted(tokenizer.vocab_size, [script]), tokenizer)
    request = engine.add([tokenizer.bos], GREEDY, max_tokens=limit)
    run(engine)
    assert [row.finish for row in request.rows] == [reason]
    assert len(request.rows[0].made) == limit

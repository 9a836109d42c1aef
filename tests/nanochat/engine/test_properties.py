"""What holds whatever arrives, is cancelled or fails: answers are those of the plain model, and no block is lost."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from nanochat.config.recipe import resolve
from nanochat.engine import Engine, Sampling
from nanochat.model import GPT, GPTConfig, init_weights

pytestmark = pytest.mark.usefixtures("one_core")
GREEDY = Sampling(temperature=0)
CONTEXT = 64


def of_recipe(name: str, vocab_size: int) -> GPT:
    """A small model with all that the recipe's model has. Windows are so short that they matter."""
    config = GPTConfig.of(resolve(name, {"model.depth": 3, "model.seq_len": CONTEXT}).model, vocab_size)
    torch.manual_seed(7)
    model = GPT(replace(config, window=12 if config.window else 0))
    init_weights(model)
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3)
    return model.eval()


@pytest.fixture(scope="module", params=["speedrun", "d26", "run1000", "modern"])
def recipe_model(request, tokenizer):
    return of_recipe(request.param, tokenizer.vocab_size)


def assert_consistent(engine):
    """Every block is free or held by as many rows as are counted, and no row holds more than its tokens need."""
    rows = engine.scheduler.running
    holders = Counter(block for row in rows for block in row.blocks)
    assert engine.blocks.free + len(holders) == engine.blocks.count
    assert all(engine.blocks.shared(block) == (count > 1) for block, count in holders.items())
    for row in rows:
        assert len(set(row.blocks)) == len(row.blocks)
        assert row.cached <= len(row.blocks) * engine.blocks.size
        assert len(row.blocks) <= engine.blocks.needed(len(row.tokens))


def assert_greedy(model, request, tokenizer):
    """Each token is the plain model's best one, up to rounding, and the answer ends where it should."""
    ends = [tokenizer.bos, tokenizer.special("<|assistant_end|>")]
    for row in request.rows:
        with torch.no_grad():
            logits = model(torch.tensor([row.tokens]))[0, len(request.prompt) - 1 :]
        best = logits.amax(dim=-1)
        for step, token in enumerate(row.made):
            if row.masks[step]:
                assert best[step] - logits[step, token] < 1e-3
        if row.finish == "stop":
            assert best[-1] - logits[-1, ends].max() < 1e-3
        elif row.finish == "length":
            assert len(row.made) == request.max_tokens


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_greedy_answers_are_those_of_the_plain_model(recipe_model, tokenizer, data):
    """Batching, the prefix cache, chunks of prompts, preemption, arrivals and cancellations change nothing."""
    engine = Engine(
        recipe_model,
        tokenizer,
        dtype=torch.float32,
        max_rows=data.draw(st.integers(1, 6)),
        cache_tokens=data.draw(st.sampled_from([CONTEXT, 80, 400])),
        step_tokens=data.draw(st.sampled_from([1, 5, 16, 64])),
    )
    common = list(range(40))
    requests = []
    for _ in range(data.draw(st.integers(2, 14))):
        action = data.draw(st.sampled_from(["add", "add", "follow", "step", "steps", "cancel", "refresh"]))
        if action == "add":
            prompt = common[: data.draw(st.integers(0, 40))] + data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=20))
            n, limit = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 24))
            key = data.draw(st.sampled_from("ab"))
            requests.append(engine.add(prompt, GREEDY, max_tokens=limit, n=n, key=key))
        elif action == "follow" and requests:  # the next turn of a chat begins with the last answer
            said = requests[data.draw(st.integers(0, len(requests) - 1))].rows[0].tokens
            requests.append(engine.add([*said[: CONTEXT - 20], 7], GREEDY, max_tokens=14))
        elif action == "cancel" and requests:
            engine.cancel(requests[data.draw(st.integers(0, len(requests) - 1))])
        elif action == "refresh":
            engine.refresh()  # the weights are the same; what is cached must not be used
        else:
            for _ in range(1 if action == "step" else 20):
                engine.step()
        assert_consistent(engine)
    while engine.busy:
        engine.step()
        assert_consistent(engine)
    for request in requests:
        assert request.finished
        assert_greedy(recipe_model, request, tokenizer)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_sampled_answer_does_not_depend_on_its_batch_mates(make_model, tokenizer, data):
    model = make_model()
    how = st.builds(
        Sampling,
        temperature=st.sampled_from([0.0, 0.5, 1.0, 1.7]),
        top_k=st.sampled_from([0, 3, 50]),
        top_p=st.sampled_from([0.5, 0.9, 1.0]),
        min_p=st.sampled_from([0.0, 0.1]),
        presence_penalty=st.sampled_from([0.0, 1.0]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        seed=st.integers(0, 5),
    )
    asked = data.draw(st.lists(st.tuples(st.lists(st.integers(0, 300), min_size=1, max_size=30), how), min_size=2, max_size=7))
    together = Engine(model, tokenizer, dtype=torch.float32, cache_tokens=data.draw(st.sampled_from([64, 400])), step_tokens=20)
    requests = [together.add(prompt, sampling, max_tokens=12) for prompt, sampling in asked]
    while together.busy:
        together.step()
    for (prompt, sampling), request in zip(asked, requests, strict=True):
        alone = Engine(model, tokenizer, dtype=torch.float32)
        expected = alone.add(prompt, sampling, max_tokens=12)
        while alone.busy:
            alone.step()
        assert request.rows[0].made == expected.rows[0].made


class Failing(nn.Module):
    """A model of one matrix that now and then fails in the middle of a pass, as one that runs out of memory does."""

    def __init__(self, vocab_size, rng):
        super().__init__()
        self.config = GPTConfig(CONTEXT, vocab_size, 1, 1, 1, 8)
        self.embed, self.lm_head = nn.Embedding(vocab_size, 8), nn.Linear(8, vocab_size, bias=False)
        self.rng, self.failures = rng, 0

    def get_device(self):
        return torch.device("cpu")

    def hidden(self, ids, cache):
        x = self.embed(ids)
        heads = x[:, None]
        cache.update(0, heads, heads)
        if self.rng.random() < 0.05:
            self.failures += 1
            raise RuntimeError("out of memory")
        return x


@pytest.mark.slow
def test_no_block_is_lost_after_ten_thousand_arrivals_cancellations_and_failures(tokenizer):
    rng = random.Random(5)
    torch.manual_seed(5)
    model = Failing(tokenizer.vocab_size, rng)
    engine = Engine(model, tokenizer, dtype=torch.float32, max_rows=8, cache_tokens=160, step_tokens=48)
    alive, events = [], Counter()
    while events.total() < 10_000:
        if rng.random() < 0.45:
            prompt = [1] * rng.choice([0, 16, 32]) + [rng.randrange(9) for _ in range(rng.randrange(1, 24))]
            how = Sampling(top_k=50, seed=rng.randrange(9))
            request = engine.add(
                prompt, how, max_tokens=rng.randrange(1, 9), n=rng.choice([1, 1, 1, 2, 3]), key=rng.choice("abc")
            )
            alive.append(request)
            events["arrivals"] += 1
        elif alive and rng.random() < 0.2:
            engine.cancel(alive.pop(rng.randrange(len(alive))))
            events["cancellations"] += 1
        else:
            try:
                engine.step()
            except RuntimeError:
                events["failures"] += 1
                if rng.random() < 0.5:  # the other half of the time the caller tries again
                    for request in alive:
                        engine.cancel(request)
                    alive.clear()
            if len(alive) > 40:
                alive = [request for request in alive if not request.finished]
        assert_consistent(engine)
    while engine.busy:
        try:
            engine.step()
        except RuntimeError:
            events["failures"] += 1
    assert engine.blocks.free == engine.blocks.count
    assert events["failures"] > 100
    assert events["cancellations"] > 500
    assert engine.scheduler.preemptions > 100
    assert all(request.finished for request in alive)


class Chain(nn.Module):
    """A model whose next token depends on the last one only, so that what it says does not depend on how it is scheduled."""

    def __init__(self, vocab_size, said):
        super().__init__()
        self.config = GPTConfig(CONTEXT, vocab_size, 1, 1, 1, vocab_size)
        self.lm_head = nn.Identity()
        self.after = torch.zeros(vocab_size, dtype=torch.long)
        self.after[said[:-1]] = torch.tensor(said[1:])

    def get_device(self):
        return torch.device("cpu")

    def hidden(self, ids, cache):
        return nn.functional.one_hot(self.after[ids], self.config.vocab_size).float() * 30


def test_results_of_tools_survive_preemption_in_every_answer(tokenizer):
    """Six requests with three answers each, in a cache of a few rows. A result that is being inserted goes on after preemption."""
    call = [tokenizer.special("<|python_start|>"), *tokenizer.encode("1234*5678"), tokenizer.special("<|python_end|>")]
    result = [tokenizer.special("<|output_start|>"), *tokenizer.encode("7006652"), tokenizer.special("<|output_end|>")]
    start, done = tokenizer.encode("=")[0], tokenizer.encode("!")[0]
    assert len(set(call)) == len(call), "each token of the call must occur once, since the chain follows from the last token"
    chain = Chain(tokenizer.vocab_size, [start, *call, 0])
    chain.after[result[-1]] = done
    chain.after[done] = tokenizer.special("<|assistant_end|>")
    engine = Engine(chain, tokenizer, cache_tokens=CONTEXT, max_rows=12, step_tokens=16)
    requests = [engine.add([*[at] * (16 + at), start], GREEDY, max_tokens=40, n=3) for at in range(1, 7)]
    while engine.busy:
        engine.step()
        assert_consistent(engine)
    assert engine.scheduler.preemptions > 0
    for request in requests:
        for row in request.rows:
            assert list(row.made) == [*call, *result, done]
            assert row.masks == [1] * len(call) + [0] * len(result) + [1]
            assert row.finish == "stop"

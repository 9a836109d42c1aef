"""Sampling: each row uses its own settings and its own random stream."""

import math

import numpy as np
import pytest
import torch

from nanochat.engine.request import Draws, Request, Row, Sampling
from nanochat.engine.sampler import fits_graph, logprobs, sample

VOCABULARY = 24


PLAIN = Sampling()


def row(how: Sampling = PLAIN, index: int = 0, made: tuple[int, ...] = (), prompt: tuple[int, ...] = (1,)) -> Row:
    return Row(Request(list(prompt), how, 100), index, [*prompt, *made], [1] * len(made))


class FixedRow(Row):
    u = 0.0

    def draw(self) -> float:
        return self.u


def fixed(u: float, how: Sampling) -> Row:
    found = FixedRow(Request([1], how, 100), 0, [1])
    found.u = u
    return found


def some_logits(rows: int = 1, seed: int = 3) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0, 1e-39, 1e-6])
def test_no_and_tiny_temperatures_take_the_likeliest(temperature):
    logits = some_logits(5)
    rows = [row(Sampling(temperature=temperature), i) for i in range(5)]
    assert torch.equal(sample(logits, rows), logits.argmax(-1))


def test_a_rows_stream_does_not_depend_on_what_runs_beside_it():
    many = [[Draws(7, r).at(step) for step in range(200)] for r in range(6)]
    backwards = Draws(7, 1)
    assert [backwards.at(step) for step in reversed(range(200))] == many[1][::-1]
    assert len(np.unique(many)) > 1190  # float32 has 2^24 values in [0, 1), so two draws may be equal
    assert Draws(8, 0).at(0) != many[0][0]
    assert 0 <= Draws(-1, 0).at(3) < 1


@pytest.mark.parametrize(
    "how",
    [Sampling(), Sampling(0.7), Sampling(1.3, top_k=5), Sampling(1.0, top_p=0.6), Sampling(1.0, 8, 0.8), Sampling(min_p=0.3)],
)
def test_frequencies_are_those_of_the_distribution(how):
    logits, n = some_logits(), 20_000
    drawn = sample(logits.expand(n, -1), [row(how, index) for index in range(n)])
    seen = torch.bincount(drawn, minlength=VOCABULARY) / n
    # The same distribution, computed step by step.
    probs = (logits[0].double() / how.temperature).softmax(-1)
    order = probs.argsort(descending=True)
    kept = order[: how.top_k or None]
    probs = torch.zeros_like(probs).scatter(0, kept, probs[kept])
    probs /= probs.sum()
    mass, nucleus = 0.0, []
    for token in order.tolist():
        if mass >= how.top_p:
            break
        nucleus.append(token)
        mass += probs[token].item()
    probs = torch.zeros_like(probs).scatter(0, torch.tensor(nucleus), probs[nucleus])
    probs[probs < how.min_p * probs.max()] = 0
    probs /= probs.sum()
    assert (seen[probs == 0] == 0).all()
    assert (seen - probs).abs().max() < 0.016


@pytest.mark.parametrize(
    "how",
    [
        Sampling(),
        Sampling(1.4, top_k=7),
        Sampling(0.8, top_p=0.85),
        Sampling(min_p=0.05),
        Sampling(presence_penalty=0.8, frequency_penalty=0.4),
        Sampling(repetition_penalty=1.5),
        Sampling(0.9, top_k=12, top_p=0.9, min_p=0.02, frequency_penalty=-0.3, logit_bias={2: 1.0, 9: -2.0}),
    ],
)
def test_a_chi_square_test_accepts_what_is_drawn_and_rejects_other_settings(how):
    """Against probabilities that are computed token by token, in the order of OpenAI's and vLLM's documents."""
    logits, n, prompt, made = some_logits(seed=11), 8_000, (1, 4), (4, 4, 6)
    scores = logits[0].double().tolist()
    for token in range(VOCABULARY):
        if token in (*prompt, *made):
            scores[token] *= 1 / how.repetition_penalty if scores[token] > 0 else how.repetition_penalty
        scores[token] -= how.frequency_penalty * made.count(token) + how.presence_penalty * (token in made)
        scores[token] += how.logit_bias.get(token, 0.0)
    ranked = sorted(range(VOCABULARY), key=lambda token: -scores[token])[: how.top_k or None]
    weights = {token: math.exp(scores[token] / how.temperature) for token in ranked}
    kept, mass, whole = {}, 0.0, sum(weights.values())
    for token in ranked:
        if mass / whole < how.top_p:
            kept[token] = weights[token]
        mass += weights[token]
    kept = {token: weight for token, weight in kept.items() if weight >= how.min_p * max(kept.values())}
    drawn = sample(logits.expand(n, -1), [row(how, index, made, prompt) for index in range(n)])
    counts = torch.bincount(drawn, minlength=VOCABULARY).tolist()
    assert {token for token, count in enumerate(counts) if count} <= set(kept)

    def chi_square(weights):
        expected = {token: n * weight / sum(weights.values()) for token, weight in weights.items()}
        return sum((counts[token] - wanted) ** 2 / wanted for token, wanted in expected.items())

    degrees = len(kept) - 1
    bound = degrees + 4 * math.sqrt(2 * degrees)  # four standard deviations above the mean; the draws are always the same
    assert chi_square(kept) < bound
    assert chi_square({token: weight**1.25 for token, weight in kept.items()}) > bound  # another temperature


def test_each_row_of_a_batch_has_its_own_settings():
    settings = [
        Sampling(0),
        Sampling(1.5, top_k=3),
        Sampling(0.5, top_p=0.4),
        Sampling(1.0, min_p=0.5),
        Sampling(1.0, logit_bias={5: 100.0}),
        Sampling(0.9, presence_penalty=2.0),
        Sampling(0, repetition_penalty=5.0),
    ]
    logits = some_logits(len(settings))
    rows = [row(how, i, made=(2, 2, 7)) for i, how in enumerate(settings)]
    alone = [int(sample(logits[i : i + 1], [row(how, i, made=(2, 2, 7))])) for i, how in enumerate(settings)]
    assert sample(logits, rows).tolist() == alone
    assert alone[4] == 5


def test_penalties_count_what_was_said():
    logits = torch.zeros(1, VOCABULARY)
    logits[0, [3, 4, 5]] = torch.tensor([3.0, 2.9, 2.5])
    assert sample(logits, [row(Sampling(0), made=(3,))]).item() == 3
    assert sample(logits, [row(Sampling(0, presence_penalty=0.5), made=(3,))]).item() == 4
    assert sample(logits, [row(Sampling(0, frequency_penalty=0.3), made=(3, 4, 4))]).item() == 3
    assert sample(logits, [row(Sampling(0, frequency_penalty=0.5), made=(3, 3, 4))]).item() == 5
    assert sample(logits, [row(Sampling(0, presence_penalty=2.0), prompt=(3,))]).item() == 3  # the prompt does not count
    assert sample(logits, [row(Sampling(0, repetition_penalty=2.0), prompt=(3,))]).item() == 4  # here the prompt counts


@pytest.mark.parametrize("penalty", [1e-46, 1e-40, 1e-5, 1e38])
@pytest.mark.parametrize("temperature", [0.0, 1.1e-5, 1.0])
def test_a_penalty_that_leaves_the_range_of_numbers_gives_a_possible_token(penalty, temperature):
    logits = torch.tensor([[-3.0, 2.0, 1.0, -1.0]])
    how = Sampling(temperature=temperature, repetition_penalty=penalty, logit_bias={2: 5.0})
    drawn = sample(logits, [row(how, prompt=(1,), made=(3,))]).item()
    assert drawn == (1 if penalty < 1 else 2)


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_draws_at_the_ends_of_the_interval_give_a_possible_token(u):
    logits = torch.full((3, 10), -100.0)
    logits[:, 4] = 5.0
    assert sample(logits, [fixed(u, Sampling(top_k=1))] * 3).tolist() == [4, 4, 4]
    flat = torch.zeros(2, 65_536)
    assert (sample(flat, [fixed(u, Sampling())] * 2) < 65_536).all()


def test_top_k_above_the_vocabulary_is_all_of_it():
    logits = some_logits(4)
    wide, off = ([row(Sampling(top_k=k), i) for i in range(4)] for k in (50, 0))
    assert torch.equal(sample(logits, wide), sample(logits, off))


@pytest.mark.parametrize("top_p", [1e-45, 1e-46, 5e-324])  # the last two are 0 in fp32
def test_a_tiny_nucleus_is_the_likeliest_token(top_p):
    logits = some_logits(4)
    rows = [row(Sampling(top_p=top_p), i) for i in range(4)]
    assert torch.equal(sample(logits, rows), logits.argmax(-1))


def test_logprobs_are_those_of_the_model_for_the_rows_that_ask():
    logits = some_logits(3)
    rows = [row(Sampling(0, logprobs=2)), row(Sampling(0)), row(Sampling(0.3, top_k=1, logprobs=0))]
    tokens = sample(logits, rows)
    first, second, third = logprobs(logits, rows, tokens)
    expected = logits.log_softmax(-1)
    assert first.token == pytest.approx(expected[0].max().item())
    assert list(first.top) == expected[0].topk(2).indices.tolist()
    assert second is None
    assert third.top == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"repetition_penalty": 0},
        {"presence_penalty": math.nan},
        {"logit_bias": {3: math.inf}},
    ],
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize(
    "how", [{"top_p": 0.9}, {"min_p": 0.1}, {"top_k": 65}, {"logprobs": 0}, {"logit_bias": {1: 1.0}}, {"presence_penalty": 1.0}]
)
def test_rows_with_other_settings_do_not_fit_a_graph(how):
    assert not fits_graph([row(), row(Sampling(**how))])

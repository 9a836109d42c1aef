import numpy as np
import pytest
import torch

from nanochat.engine.sampler import Sampling, sample, uniforms


def test_temperature_0_is_argmax():
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(logits, torch.rand(5), Sampling(temperature=0)), logits.argmax(-1))


def test_a_rows_stream_does_not_depend_on_its_batch():
    many, few = uniforms(7, 6, 20), uniforms(7, 2, 9)
    assert np.array_equal(many[:2, :9], few)
    assert len(np.unique(many)) == many.size
    assert not np.array_equal(many, uniforms(8, 6, 20))
    assert uniforms(-1, 1, 3).shape == (1, 3)


@pytest.mark.parametrize(
    "how", [Sampling(), Sampling(0.7), Sampling(1.3, top_k=5), Sampling(1.0, top_p=0.6), Sampling(1.0, 8, 0.8)]
)
def test_frequencies_are_those_of_the_distribution(how):
    logits = torch.randn(1, 24, generator=torch.Generator().manual_seed(3))
    n = 40_000
    drawn = sample(logits.expand(n, -1), torch.from_numpy(uniforms(1, 1, n)[0]), how)
    seen = torch.bincount(drawn, minlength=24) / n
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
    probs /= probs.sum()
    assert (seen[probs == 0] == 0).all()
    assert (seen - probs).abs().max() < 0.012


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-24, 1.0])
def test_the_ends_of_the_interval_hit_a_token_that_can_be(u):
    logits = torch.full((3, 10), -100.0)
    logits[:, 4] = 5.0
    how = Sampling(top_k=1)
    assert sample(logits, torch.full((3,), u), how).tolist() == [4, 4, 4]
    flat = torch.zeros(2, 65_536)
    assert (sample(flat, torch.full((2,), u), Sampling()) < 65_536).all()


def test_top_k_above_the_vocabulary_is_all_of_it():
    logits = torch.randn(4, 6)
    u = torch.rand(4)
    assert torch.equal(sample(logits, u, Sampling(top_k=50)), sample(logits, u, Sampling()))


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)

"""The kernels draw the tokens that `sampler.sample` draws."""

import pytest
import torch

from nanochat.engine.request import Request, Row, Sampling
from nanochat.engine.sampler import sample
from nanochat.kernels.inference import draw

CAP = 15.0


class FixedRow(Row):
    u = 0.0

    def draw(self) -> float:
        return self.u


@pytest.mark.parametrize("vocabulary", [300, 1024, 5000])
def test_draws_what_the_sampler_draws(device, vocabulary):
    torch.manual_seed(0)
    raw = 4 * torch.randn(32, vocabulary, device=device)
    raw[3, 7] = raw[3, 9] = 14.0  # a tie
    rows = []
    for i, u in enumerate([*torch.rand(28).tolist(), 0.0, 0.9999999, 0.0, 0.9999999]):
        how = Sampling(temperature=(0.0, 1.0, 0.7, 2.0)[i % 4], top_k=(0, 0, 5, 64, 1, 50, 64)[i % 7])
        rows.append(FixedRow(Request([1], how, 100), 0, [1]))
        rows[-1].u = u
    capped = CAP * torch.tanh(raw / CAP)
    wanted = sample(capped, rows)
    temperatures = [how.temperature for how in (row.request.sampling for row in rows)]
    numbers = torch.tensor([[1 / t if t else 0.0, row.u] for t, row in zip(temperatures, rows, strict=True)], device=device)
    top_k = torch.tensor([row.request.sampling.top_k for row in rows], device=device, dtype=torch.int32)
    out = torch.full((32,), -1, device=device)
    draw.draw(raw, CAP, numbers, top_k, out, draw.Workspace(32, vocabulary, torch.device(device)))
    torch.testing.assert_close(raw, capped, atol=1e-4, rtol=1e-4)
    assert (out != wanted).sum() <= (0 if device == "cpu" else 1)  # sums in another order may move a bound past a random number

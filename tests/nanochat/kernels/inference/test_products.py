"""Products with one row and the kernels on the residual stream equal the plain functions."""

import pytest
import torch
import torch.nn.functional as F

from nanochat.kernels.inference import int8, residual, vector
from nanochat.model.layers import EPS


def normed(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x.float(), (x.size(-1),), eps=EPS)


def close(found, wanted):
    loose = found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), wanted.float(), rtol=3e-2 if loose else 1e-4, atol=3e-2 if loose else 1e-4)


@pytest.fixture
def random(device):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return lambda *shape: torch.randn(*shape, device=device).to(dtype)


@pytest.mark.parametrize("inner", [96, 256, 2100, 5120])
def test_a_vector_is_added_to_the_stream_and_the_stream_is_normed(random, device, inner):
    """The second product needs the sums of squares that the first one left. Long vectors are split among programs."""
    x, weight, before = random(1, inner), random(82, inner) / inner**0.5, random(1, 82)
    workspace = vector.Workspace(torch.device(device))
    stream = vector.Stream(before.clone(), torch.full((vector.MAX_TILES,), torch.nan, device=device))
    vector.product(x, weight, stream.x, workspace, onto=stream)
    close(stream.x, before.float() + x.float() @ weight.float().T)
    close(stream.squares[: stream.tiles].sum(), stream.x.float().square().sum())
    assert not workspace.counts.any()

    up = random(50, 82) / 82**0.5
    out = torch.full((1, 50), torch.nan, device=device)
    plain = normed(stream.x) @ up.float().T
    close(vector.product(stream.x, up, out, workspace, normed=stream, relu2=True, eps=EPS), plain.relu().square())
    close(vector.product(stream.x, up, out, workspace, normed=stream, eps=EPS), plain)
    close(vector.product(stream.x, up, out, workspace), stream.x.float() @ up.float().T)


@pytest.mark.parametrize("inner", [96, 256, 2100, 5120])
def test_a_matrix_in_8_bits_gives_what_the_rounded_matrix_gives(random, device, inner):
    x, before = random(1, inner), random(1, 82)
    weight = random(82, inner) / inner**0.5 * torch.logspace(-6, 6, 82, device=device)[:, None].to(x.dtype)
    weight[3] = 0
    exact = weight.float()
    narrow = int8.round_(weight)
    step = exact.abs().amax(1, keepdim=True) / 127
    assert ((weight.float() - exact).abs() <= step).all()  # half of a step that is at most twice as long
    assert narrow.levels.min() >= 1
    assert torch.equal((narrow.levels.float() - 128) * narrow.steps[:, None], weight.float())
    again = int8.round_(weight)
    assert torch.equal((again.levels.float() - 128) * again.steps[:, None], weight.float())

    workspace = vector.Workspace(torch.device(device))
    stream = vector.Stream(before.clone(), torch.zeros(vector.MAX_TILES, device=device))
    vector.product(x, narrow, stream.x, workspace, onto=stream)
    wanted = before.float() + x.float() @ weight.float().T
    torch.testing.assert_close(stream.x.float(), wanted, rtol=3e-2 if x.dtype is torch.bfloat16 else 1e-4, atol=3e-2)
    out = torch.empty(1, 50, device=device, dtype=x.dtype)
    up = random(50, 82) / 82**0.5
    narrow = int8.round_(up)
    stream = vector.Stream(before.clone(), before.float().square().sum(1), tiles=1)
    found = vector.product(stream.x, narrow, out, workspace, normed=stream, relu2=True, eps=EPS)
    close(found, (normed(before) @ up.float().T).relu().square())


def test_embeddings_come_from_the_host_or_from_what_was_drawn(random, device):
    table, drawn = random(50, 96), torch.tensor([7, 9], device=device)
    ids, source = (torch.tensor(values, device=device, dtype=torch.int32) for values in ([3, 4, 5], [-1, 1, -1]))
    squares = torch.empty(3, device=device)
    tokens, x = residual.embed(ids, source, drawn, table, squares, EPS)
    assert tokens.tolist() == [3, 9, 5]
    close(x, normed(table[tokens]))
    close(squares, x.float().square().sum(1))


def test_streams_are_mixed(random, device):
    x, other, squares = random(3, 96), random(3, 96), torch.empty(3, device=device)
    own, share = torch.tensor(1.25, device=device), torch.tensor(0.5, device=device)
    wanted = 1.25 * x.float() + 0.5 * other.float()
    residual.mix(x, other, own, share, squares)
    close(x, wanted)
    close(squares, x.float().square().sum(1))
    wanted = x.float() - 0.5 * other.float()
    residual.mix(x, other, None, share, squares, sign=-1)
    close(x, wanted)


def test_smear_adds_the_previous_token_where_there_is_one(random, device):
    table, gate, amount = random(50, 96), random(1, 24), torch.tensor(0.7, device=device)
    x, squares = random(2, 96), torch.empty(2, device=device)
    before = torch.tensor([5, -1], device=device, dtype=torch.int32)
    wanted = x.float()
    wanted[0] += 0.7 * torch.sigmoid(gate[0].float() @ x[0, :24].float()) * normed(table[5])
    residual.smear(x, before, table, gate, amount, squares, EPS)
    close(x, wanted)
    close(squares, x.float().square().sum(1))


@pytest.mark.parametrize("width", [96, 1100])
def test_relu_squared_of_a_product_of_the_normed_stream(random, width):
    u, x = random(3, width), random(3, 48)
    factor = (x.float().square().mean(1, keepdim=True) + EPS).rsqrt()
    close(residual.relu_squared(u.clone(), x, EPS), (u.float() * factor).relu().square())
    close(residual.relu_squared(u.clone()), u.float().relu().square())


@pytest.mark.parametrize("norm", [True, False])
def test_value_embeddings_are_gated_per_head(random, device, norm):
    heads, kv_heads, width = 4, 2, 16
    qkv, x, table, gate = (
        random(3, heads + 2 * kv_heads, width),
        random(3, 96),
        random(50, kv_heads * width),
        random(kv_heads, 12),
    )
    tokens = torch.tensor([3, 0, 49], device=device)
    factor = (x.float().square().mean(1) + EPS).rsqrt()
    wanted = qkv.float()
    values = wanted[:, heads + kv_heads :] * (factor[:, None, None] if norm else 1)
    open_ = 3 * torch.sigmoid(normed(x)[:, :12] @ gate.float().T)
    wanted[:, heads + kv_heads :] = values + open_[..., None] * table[tokens].float().view(3, kv_heads, width)
    residual.add_value_embed(qkv, x, tokens, table, gate, heads=heads, scale=3.0, eps=EPS, norm=norm)
    close(qkv, wanted)

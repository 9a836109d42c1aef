"""fp8 products against fp32 ones, and a small model that trains with them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nanochat.model import GPT, GPTConfig, fp8, init_weights


def error(actual, expected):
    """Relative, in the Frobenius norm."""
    return ((actual.float() - expected.float()).norm() / expected.float().norm()).item()


def relu2_mlp(x, up, down):
    return F.linear(F.relu(F.linear(x, up)).square(), down)


def grads(function, inputs, upstream):
    y = function(*inputs)
    return [y, *torch.autograd.grad(y, inputs, upstream)]


def operands(device="cpu", dtype=torch.float32):
    torch.manual_seed(0)
    x = torch.randn(4, 64, 128, device=device, dtype=dtype, requires_grad=True)
    up = (torch.randn(256, 128, device=device) * 0.1).requires_grad_()
    down = (torch.randn(128, 256, device=device) * 0.1).requires_grad_()
    return x, up, down


@pytest.mark.parametrize("steps", [1, 3])
def test_product_is_close_to_fp32(steps):
    x, weight, _ = operands()
    magnitudes = fp8.Magnitudes(1, x.device)
    upstream = torch.randn(4, 64, 256) * torch.rand(4, 64, 1)
    for _ in range(steps):
        y = fp8.Fp8Linear(magnitudes, 0)(x, weight)
        actual = [y, *torch.autograd.grad(y, (x, weight), upstream)]
        magnitudes.probe.grad = torch.full_like(magnitudes.before, upstream.abs().max().item())  # backward() would add this
        magnitudes.roll()
    expected = grads(F.linear, (x, weight), upstream)
    assert [error(a, e) < limit for a, e, limit in zip(actual, expected, (0.04, 0.07, 0.07), strict=True)] == [True] * 3


def test_mlp_is_close_to_fp32():
    inputs = operands()
    upstream = torch.randn(4, 64, 128)
    actual = grads(fp8.Fp8MLP(fp8.Magnitudes(2, inputs[0].device), 0, 1), inputs, upstream)
    expected = grads(relu2_mlp, inputs, upstream)
    limits = (0.08, 0.1, 0.1, 0.1)
    assert [error(a, e) < limit for a, e, limit in zip(actual, expected, limits, strict=True)] == [True] * 4


def test_the_magnitudes_of_the_last_step_are_kept():
    x, weight, _ = operands()
    magnitudes = fp8.Magnitudes(1, x.device)
    upstream = torch.randn(4, 64, 256).bfloat16().float()  # the product rounds it to bf16 anyway
    y = fp8.Fp8Linear(magnitudes, 0)(x, weight)
    y.backward(upstream)
    expected = torch.stack([x.abs().max(), weight.abs().max(), upstream.abs().max()])
    magnitudes.roll()
    torch.testing.assert_close(magnitudes.before, expected)
    assert not magnitudes.seen.any()


def test_no_fp8_without_gradients_or_for_sizes_that_do_not_fit():
    x, weight, _ = operands()
    product = fp8.Fp8Linear(fp8.Magnitudes(1, x.device), 0)
    with torch.no_grad():
        torch.testing.assert_close(product(x, weight), F.linear(x, weight), rtol=0, atol=0)
    torch.testing.assert_close(product(x[:, :3], weight), F.linear(x[:, :3], weight), rtol=0, atol=0)
    torch.testing.assert_close(product(x, weight[:100]), F.linear(x, weight[:100]), rtol=0, atol=0)
    assert not product.magnitudes.seen.any()


def model(fast):
    torch.manual_seed(1)
    model = GPT(GPTConfig(64, 256, 2, 2, 2, 64))
    init_weights(model)
    return model, fp8.apply(model) if fast else None


def train(fast, steps=50):
    net, magnitudes = model(fast)
    torch.manual_seed(2)
    tokens = torch.randint(0, 256, (4, 65))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if magnitudes:
            magnitudes.roll()
    return loss.item(), magnitudes


def test_a_model_trains_as_well_as_in_bf16(one_core):
    plain, _ = train(False)
    fast, magnitudes = train(True)
    assert plain < 4.5  # down from ln 256 = 5.5
    assert abs(fast - plain) < 0.05
    used = magnitudes.before.view(-1, 3)
    assert ((used > 0).all(1) | (used == 0).all(1)).all()
    assert (used > 0).all(1).sum() == 2 * 6


def test_apply_leaves_the_state_dict_alone():
    plain, fast = model(False)[0], model(True)[0]
    assert list(plain.state_dict()) == list(fast.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), fast.state_dict().values(), strict=True))
    assert fp8.unfit(fast) == []
    with torch.device("meta"):
        odd = GPT(GPTConfig(64, 256, 1, 1, 1, 24))
    assert fp8.unfit(odd)[0] == "blocks.0.attn.q.weight (24, 24)"


def test_compiled_equals_eager_without_a_graph_break(one_core):
    tokens = torch.randint(0, 256, (2, 33), generator=torch.Generator().manual_seed(0))
    results = []
    for compiled in (False, True):
        net, magnitudes = model(True)
        for param in net.parameters():
            torch.nn.init.normal_(param, std=0.1, generator=torch.Generator().manual_seed(param.numel()))
        forward = torch.compile(net, backend="aot_eager", dynamic=False, fullgraph=True) if compiled else net
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = forward(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            magnitudes.roll()
        results.append([magnitudes.before.clone(), *(p.grad for p in net.parameters())])
    for eager, traced in zip(*results, strict=True):
        assert error(traced, eager) < 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: Triton's casts and cuBLAS's fp8 products")
def test_cuda_agrees_with_the_reference():
    for function, count in ((lambda m: fp8.Fp8Linear(m, 0), 2), (lambda m: fp8.Fp8MLP(m, 0, 1), 3)):
        inputs = [t.detach().requires_grad_() for t in operands(dtype=torch.bfloat16)][:count]
        upstream = torch.randn(4, 64, 256 if count == 2 else 128, dtype=torch.bfloat16)
        expected = grads(function(fp8.Magnitudes(2, inputs[0].device)), inputs, upstream)
        moved = [t.detach().cuda().requires_grad_() for t in inputs]
        actual = grads(function(fp8.Magnitudes(2, moved[0].device)), moved, upstream.cuda())
        for a, e in zip(actual, expected, strict=True):
            assert error(a.cpu(), e) < 0.01

"""The optimizer over real process groups: any number of ranks makes the same updates as one."""

import json
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from nanochat.contract.launch import torchrun
from nanochat.distributed import Ranks
from nanochat.model import GPT, init_weights
from nanochat.optim import Optimizer

from . import worker

ONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module", params=worker.KINDS)
def kind(request):
    return request.param


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices: NCCL")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, TWO_GPUS])])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def one_rank(kind, device, tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    worker.train(Ranks(0, 1, torch.device(device)), out, kind)
    return out


@pytest.fixture(scope="module")
def many_ranks(kind, device, tmp_path_factory):
    out = tmp_path_factory.mktemp("many")
    ranks = {"speedrun": 4, "modern": 2}[kind] if device == "cpu" else 2
    command = torchrun(ranks, worker.__file__, str(out), kind, device)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_losses_and_weights_equal_those_of_one_rank(kind, one_rank, many_ranks):
    # Clipping is active from the first step. If it happened before averaging, the runs would diverge at once.
    one, many = (json.loads((out / "log.json").read_text()) for out in (one_rank, many_ranks))
    assert min(one["norms"]) > worker.SPEC.grad_clip
    assert many["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert many["losses"] == pytest.approx(one["losses"], rel=1e-4)
    expected = load_file(one_rank / "model.safetensors")
    for name, value in load_file(many_ranks / "model.safetensors").items():
        if kind == "modern":  # Polar Express amplifies noise: 6e-8 in one rank's gradients moves weights by 3e-3, norms by 5e-4
            assert (value - expected[name]).norm() <= 2e-3 * expected[name].norm(), name
        else:
            torch.testing.assert_close(value, expected[name], atol=2e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def test_state_of_many_ranks_is_the_state_of_one(kind, one_rank, many_ranks):
    world = len(list(many_ranks.glob("optim_rank*")))
    config, spec = worker.KINDS[kind]
    model = GPT(config)
    init_weights(model)
    optimizer = Optimizer(model, spec, ONE)
    optimizer.load([load_file(many_ranks / f"optim_rank{rank}.safetensors") for rank in range(world)], steps=5)
    expected = load_file(one_rank / "optim_rank0.safetensors")
    assert optimizer.state().keys() == expected.keys()
    for name, value in optimizer.state().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=1e-2, msg=lambda text, n=name: f"{n}: {text}")

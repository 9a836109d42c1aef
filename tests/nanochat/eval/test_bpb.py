import math

import pytest
import torch

from nanochat.distributed import Ranks
from nanochat.eval.bpb import bits_per_byte

pytestmark = pytest.mark.usefixtures("one_core")
ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def batches(vocab, count=3, ignored=0.2):
    made = torch.Generator().manual_seed(0)
    for _ in range(count):
        targets = torch.randint(vocab, (4, 16), generator=made)
        targets[torch.rand(4, 16, generator=made) < ignored] = -1
        yield torch.randint(vocab, (4, 16), generator=made), targets


def test_against_the_definition_in_float64(make_model):
    model = make_model(97)
    token_bytes = torch.randint(0, 6, (97,), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    nats, total = 0.0, 0
    for inputs, targets in batches(97):
        with torch.no_grad():
            logits = model(inputs).double()
        for row, wanted in zip(logits.flatten(0, 1), targets.flatten().tolist(), strict=True):
            if wanted >= 0 and token_bytes[wanted] > 0:
                nats -= row.log_softmax(-1)[wanted].item()
                total += int(token_bytes[wanted])
    assert bits_per_byte(model, batches(97), token_bytes, ONE_RANK) == pytest.approx(nats / math.log(2) / total, rel=1e-6)


def test_a_uniform_model_needs_the_bits_of_a_choice(make_model):
    model = make_model(64)
    torch.nn.init.zeros_(model.lm_head.weight)
    assert bits_per_byte(model, batches(64), torch.full((64,), 2), ONE_RANK) == pytest.approx(math.log2(64) / 2, rel=1e-6)


def test_special_tokens_and_ignored_targets_count_for_nothing(make_model):
    model = make_model(64)
    sizes = torch.ones(64, dtype=torch.int32)
    inputs, targets = next(batches(64, ignored=0))
    some = targets.clone()
    some[:, ::2] = -1
    sizes_without = sizes.clone()
    special = int(targets[0, 1])
    sizes_without[special] = 0
    masked = some.masked_fill(some == special, -1)
    assert bits_per_byte(model, [(inputs, some)], sizes_without, ONE_RANK) == bits_per_byte(
        model, [(inputs, masked)], sizes, ONE_RANK
    )


@pytest.mark.parametrize("made", [[], "all ignored"])
def test_bits_per_byte_of_no_bytes_is_infinite(make_model, made):
    if made:
        made = [(torch.zeros(1, 4, dtype=torch.int64), torch.full((1, 4), -1))]
    assert bits_per_byte(make_model(64), made, torch.ones(64), ONE_RANK) == math.inf

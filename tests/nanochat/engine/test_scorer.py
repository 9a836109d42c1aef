"""Scores with shared beginnings are those of a plain pass over each sequence."""

import random

import pytest
import torch
import torch.nn.functional as F

from nanochat.engine import scorer as module
from nanochat.engine.runner import Runner
from nanochat.engine.scorer import ScoredSequence, Scorer, common_prefix
from tests.nanochat.engine import shared_beginnings
from tests.nanochat.engine.switches import MODERN

pytestmark = pytest.mark.usefixtures("one_core")


def plain(model, sequence):
    """The mean loss of the span and whether it is the most likely text, by one pass over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([sequence.ids]))[0, sequence.start - 1 : sequence.end - 1]
    wanted = torch.tensor(sequence.ids[sequence.start : sequence.end])
    return F.cross_entropy(logits, wanted).item(), bool((logits.argmax(-1) == wanted).all())


def made(model, seed=0):
    """Groups of several kinds: a long beginning in common, a short one, none, equal ends, a single sequence, a model's own text."""
    rng = random.Random(seed)

    def tokens(count):
        return rng.choices(range(400), k=count)

    groups = []
    for shared, owns in [(70, (3, 9, 1)), (16, (2, 2)), (33, (20, 1)), (5, (4, 6)), (0, (7, 12)), (48, (1, 1, 1, 1, 1))]:
        beginning = [399, *tokens(shared)]
        groups.append([ScoredSequence([*beginning, *tokens(own)], shared + 1, shared + 1 + own) for own in owns])
    beginning, end = tokens(40), tokens(6)
    groups.append([ScoredSequence([*beginning, *tokens(own), *end], 40 + own, 46 + own) for own in (2, 5)])
    ids = tokens(30)
    for _ in range(3):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    groups.append([ScoredSequence(ids, 30, 33)])
    groups.append([ScoredSequence([*ids[:32], (ids[32] + 1) % 400], 30, 33)])
    rng.shuffle(groups)
    return groups


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize(("packed", "batch_tokens"), [(False, 1), (False, 100), (False, 4096), (True, 4096)])
def test_scores_are_those_of_a_plain_pass(make_model, monkeypatch, switches, packed, batch_tokens):
    """`packed` is how a GPU reads: every pass is full, and a row goes on in the next one."""
    model = make_model(**switches)
    scorer = Scorer(model, dtype=torch.float32, batch_tokens=batch_tokens)
    if packed:
        monkeypatch.setattr(Runner, "ahead", True)
        monkeypatch.setattr(scorer, "_budget", module.Budget(block=16, step=37, idle=37, chunk=8, even=False))
    groups = made(model)
    for group, scores in zip(groups, scorer.spans(groups), strict=True):
        for sequence, (loss, exact) in zip(group, scores, strict=True):
            wanted, wanted_exact = plain(model, sequence)
            assert loss == pytest.approx(wanted, abs=1e-4)
            assert exact == wanted_exact
    assert {exact for scores in scorer.spans(groups) for _, exact in scores} == {True, False}


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
def test_scores_in_bf16_are_as_near_to_fp32_as_those_of_a_plain_pass_in_bf16(make_model, switches):
    """As tests/nanochat/engine/test_gpu.py on a GPU, with fewer tokens."""
    model = make_model(seq_len=64, **switches)
    shared_beginnings.assert_no_worse_than_a_plain_pass(model, torch.bfloat16, shared_beginnings.groups(30, 120))


def test_a_beginning_in_common_is_read_once(make_model, monkeypatch):
    read = []
    monkeypatch.setattr(Runner, "read", lambda self, rows, new, read_=Runner.read: (read.extend(new), read_(self, rows, new)))
    beginning = list(range(100, 160))
    group = [ScoredSequence([*beginning, 1, 2 + i], 60, 62) for i in range(5)]
    Scorer(make_model(), dtype=torch.float32).spans([group])
    assert (
        sum(read) == 59 + 5 * 2
    )  # the last token of the beginning predicts, so each reads it again; the span's last predicts nothing


def test_more_than_the_cache_holds_is_read_in_parts(make_model, monkeypatch):
    model = make_model()
    groups = made(model)
    wanted = Scorer(model, dtype=torch.float32).spans(groups)
    monkeypatch.setattr(module, "CPU_POSITIONS", 1)
    scorer = Scorer(model, dtype=torch.float32)
    monkeypatch.setattr(scorer, "_count", 8)  # blocks of 16 positions
    for scores, others in zip(scorer.spans(groups), wanted, strict=True):
        assert [loss for loss, _ in scores] == pytest.approx([loss for loss, _ in others], abs=1e-4)


def test_padding_stays_within_the_models_positions(make_model):
    """A long beginning with a short end beside a short beginning with a long end."""
    model = make_model(seq_len=16)
    scorer = Scorer(model, dtype=torch.float32)
    rng = random.Random(3)

    def group(shared, own):
        ids = rng.choices(range(400), k=shared)
        return [ScoredSequence([*ids, *rng.choices(range(400), k=own)], shared, shared + own) for _ in range(2)]

    groups = [group(scorer.limit - 3, 3), group(20, 30)]
    for some, scores in zip(groups, scorer.spans(groups), strict=True):
        for sequence, (loss, _) in zip(some, scores, strict=True):
            assert loss == pytest.approx(plain(model, sequence)[0], abs=1e-4)


def test_the_logits_of_the_next_token(make_model):
    model = make_model()
    rng = random.Random(1)
    prompts = [rng.choices(range(400), k=k) for k in (5, 40, 1, 17)]
    logits = Scorer(model, dtype=torch.float32).next_logits(prompts, [3, 77, 12])
    for prompt, row in zip(prompts, logits, strict=True):
        with torch.no_grad():
            wanted = model.lm_head(model.hidden(torch.tensor([prompt])))[0, -1, [3, 77, 12]]
        assert row.tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    assert Scorer(model).next_logits([], [1, 2]).shape == (0, 2)


def test_a_sequence_beyond_the_models_positions_is_refused(make_model):
    scorer = Scorer(make_model(seq_len=16))
    with pytest.raises(ValueError, match=f"at most {scorer.limit}"):
        scorer.spans([[ScoredSequence([1] * (scorer.limit + 3), 5, scorer.limit + 3)]])


def test_the_common_beginning():
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2, 3, 5]]) == 2
    assert common_prefix([[1, 2], [1, 2]]) == 2
    assert common_prefix([[1], [2]]) == 0
    assert common_prefix([[], [2]]) == 0
    assert common_prefix([[7, 8, 9]]) == 3

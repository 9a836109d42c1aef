"""The log probabilities of a prompt are those of a plain pass through the model."""

import pytest
import torch

from nanochat.engine import Engine, scoring
from tests.nanochat.engine.switches import MODERN

PROMPT = [3, 14, 15, 92, 65, 35, 89, 79, 3, 23, 84]


@pytest.mark.parametrize("switches", [{}, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize("positions", [4, 256])
def test_scores_are_those_of_the_model(make_model, tokenizer, monkeypatch, switches, positions):
    monkeypatch.setattr(scoring, "POSITIONS", positions)
    model = make_model(**switches)
    with torch.no_grad():
        logs = model(torch.tensor([PROMPT]))[0].log_softmax(-1)
    scores = Engine(model, tokenizer, dtype=torch.float32).score(PROMPT, top=3)
    assert len(scores) == len(PROMPT) - 1
    for place, score in enumerate(scores):
        assert score.token == pytest.approx(float(logs[place, PROMPT[place + 1]]), abs=1e-4)
        assert list(score.top) == logs[place].topk(3).indices.tolist()
        assert list(score.top.values()) == pytest.approx(logs[place].topk(3).values.tolist(), abs=1e-4)


def test_one_token_has_nothing_to_score(make_model, tokenizer):
    assert Engine(make_model(), tokenizer).score([3]) == []

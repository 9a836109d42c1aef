"""On real text, training gives the same merges as the published `rustbpe` 0.1.0."""

import pytest

from benchmarks.options import default_data
from benchmarks.tokenizer import corpus, peers


@pytest.mark.parametrize("pattern", [None, r"\p{L}+|\P{L}+"])
def test_equal_to_the_published_trainer(pattern: str | None) -> None:
    import rustbpe

    data = default_data()
    job = {
        "kind": "train",
        "data": str(data) if data else None,
        "chars": 3_000_000,
        "vocab": 6000,
        "pattern": pattern or rustbpe.SPLIT_PATTERN,
        "threads": 2,
    }
    theirs = peers.run("rustbpe 0.1.0", job, seconds=120)
    if "reason" in theirs:
        pytest.skip(f"rustbpe 0.1.0: {theirs['reason']}")
    ours = peers.run("ours", job, seconds=120)
    assert ours["digest"] == theirs["digest"], f"text: {corpus.source(data)}"

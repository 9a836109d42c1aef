"""One way to do a thing: what used to be written several times stands in one file of `libs` and `services`."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A text that the code must contain to do the thing -> the file that does it.
ONCE = {
    "torch.distributed.run": "libs/nanochat/contract/launch.py",
}


@pytest.mark.parametrize("text", ONCE)
def test_it_is_written_in_one_file(text: str) -> None:
    sources = [path for root in ("libs", "services") for path in (ROOT / root).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in sources if text in path.read_text(encoding="utf-8")}
    assert found == {ONCE[text]}

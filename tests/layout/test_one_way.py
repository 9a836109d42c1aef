"""One way to do a thing: what used to be written several times stands in one file, or in none where a library does it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A text that code which does the thing has to contain -> the files of `libs` and `services` that may do it.
WHERE = {
    "torch.distributed.run": {"libs/nanochat/contract/launch.py"},
    "httpx_sse": {"libs/client/sse.py"},
    'f"data: ': set(),  # a server-sent event written by hand; fastapi.sse does it
}


@pytest.mark.parametrize("text", WHERE)
def test_it_is_written_in_its_place_only(text: str) -> None:
    sources = [path for root in ("libs", "services") for path in (ROOT / root).rglob("*.py")]
    assert len(sources) > 200
    found = {str(path.relative_to(ROOT)) for path in sources if text in path.read_text(encoding="utf-8")}
    assert found == WHERE[text]

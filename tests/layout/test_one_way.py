"""There is one way to do a thing: code that was once repeated is now in one file, or nowhere if a library does it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A text that such code has to contain -> the files in `libs` and `services` that may contain it.
WHERE = {
    "torch.distributed.run": {"libs/nanochat/contract/launch.py"},
    "httpx_sse": {"libs/client/sse.py"},
    'f"data: ': set(),  # a server-sent event written by hand; fastapi.sse does it
}


@pytest.mark.parametrize("text", WHERE)
def test_only_these_files_contain_it(text: str) -> None:
    sources = [path for root in ("libs", "services") for path in (ROOT / root).rglob("*.py")]
    assert len(sources) > 200
    found = {str(path.relative_to(ROOT)) for path in sources if text in path.read_text(encoding="utf-8")}
    assert found == WHERE[text]

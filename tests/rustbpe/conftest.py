"""Texts and vocabularies for the tokenizer tests."""

import itertools
import os
from pathlib import Path

import pytest
import tiktoken

import rustbpe

SHARED = Path(os.environ.get("DATA", Path(__file__).parents[3] / "shared" / "data" / "pretrain"))
PROSE = [
    "The cat's hat, the dog's log; they'll say we've 1234 of 56 at 7:30.",
    "  indented\n\n\tcode = f(x)  # it's fine\r\n",
    "안녕하세요 세계! 日本語のテキスト、ＦＵＬＬ width ١٢٣ Ⅻ",
    "naïve café — “quoted” … 🙂🙃 e\u0301",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbb " * 3,
]


@pytest.fixture(scope="session")
def shards() -> list[Path]:
    paths = sorted(SHARED.glob("*.parquet"))
    if not paths:
        pytest.skip(f"no pretraining text in {SHARED}")
    return paths


@pytest.fixture(scope="session")
def documents(shards: list[Path]) -> list[str]:
    """2 MB of English."""
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(shards[0]).read_row_group(0)
    return table.column("text").to_pylist()[:500]


@pytest.fixture(scope="session")
def tokenizer() -> rustbpe.Tokenizer:
    """450 tokens from a few lines. The merges reach every script of PROSE."""
    return rustbpe.train(itertools.chain(PROSE * 2, [Path(rustbpe.__file__).read_text()]), 450)


@pytest.fixture(scope="session")
def oracle(tokenizer: rustbpe.Tokenizer) -> tiktoken.Encoding:
    return tiktoken_of(tokenizer)


def tiktoken_of(tokenizer: rustbpe.Tokenizer) -> tiktoken.Encoding:
    return tiktoken.Encoding("ours", pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.mergeable_ranks(), special_tokens={})

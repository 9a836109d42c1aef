"""The tokenizer on disk and in memory: round trips, special tokens, byte lengths."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.contract.contract import StageError
from nanochat.tokenizer import Tokenizer


def test_special_tokens_follow_the_mergeable_ones(tokenizer: Tokenizer) -> None:
    first = tokenizer.vocab_size - len(SPECIAL_TOKENS)
    assert [tokenizer.special(name) for name in SPECIAL_TOKENS] == list(range(first, tokenizer.vocab_size))
    assert tokenizer.bos == first


@given(text=st.text())
def test_every_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_name_of_a_special_token_in_text_is_only_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("".join(SPECIAL_TOKENS))
    assert max(ids) < tokenizer.bos
    assert tokenizer.encode_batch(["<|bos|>"]) == [tokenizer.encode("<|bos|>")]


def test_token_bytes_count_raw_bytes(tokenizer: Tokenizer) -> None:
    lengths = tokenizer.token_bytes()
    assert lengths.dtype == np.int32
    assert lengths.shape == (tokenizer.vocab_size,)
    for byte in range(256):  # a lone byte of a longer character decodes to U+FFFD, three bytes; it still counts as one
        assert lengths[byte] == 1
    assert all(lengths[tokenizer.special(name)] == 0 for name in SPECIAL_TOKENS)
    text = "naïve 한국어 – 12 words"
    assert lengths[tokenizer.encode(text)].sum() == len(text.encode())


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    text = "The quick brown fox 123 한국어"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.special("<|output_end|>") == tokenizer.special("<|output_end|>")
    assert (np.load(tmp_path / "token_bytes.npy", allow_pickle=False) == tokenizer.token_bytes()).all()
    assert sorted(os.listdir(tmp_path)) == ["token_bytes.npy", "tokenizer.json"]


def test_a_missing_or_damaged_file_is_refused_by_name(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StageError, match=r"tokenizer\.json") as error:
        Tokenizer.load(tmp_path)
    assert error.value.code == "tokenizer_corrupt"


def test_documents_are_joined_with_a_bos_each(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_documents(["one", "two two"])
    assert ids.tolist() == [tokenizer.bos, *tokenizer.encode("one"), tokenizer.bos, *tokenizer.encode("two two")]


@given(text=st.text(max_size=60))
def test_the_stream_decoder_never_shows_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + decoder.finish() == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text

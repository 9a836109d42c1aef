"""Tokenizer files: loading restores what was saved, damage is detected, and other libraries read the same ids."""

import json
import os
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe
from tests.rustbpe.conftest import PROSE, SHARED


@pytest.fixture(scope="module")
def special(tokenizer: rustbpe.Tokenizer) -> rustbpe.Tokenizer:
    return tokenizer.with_special_tokens(["<|bos|>", "<|é|>"])


def assert_equal(left: rustbpe.Tokenizer, right: rustbpe.Tokenizer) -> None:
    assert left.mergeable_ranks() == right.mergeable_ranks()
    assert (left.pattern, left.special_tokens) == (right.pattern, right.special_tokens)


class TestJson:
    def test_round_trip(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        special.save(tmp_path / "t.json")
        assert_equal(rustbpe.Tokenizer.load(tmp_path / "t.json"), special)
        assert json.loads((tmp_path / "t.json").read_bytes())["special_tokens"] == ["<|bos|>", "<|é|>"]

    def test_the_same_tokenizer_gives_the_same_bytes(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        special.save(tmp_path / "a.json")
        rustbpe.Tokenizer.load(tmp_path / "a.json").save(tmp_path / "b.json")
        assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()

    def test_any_change_is_detected(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        special.save(path)
        good = json.loads(path.read_bytes())
        tokens = [*good["tokens"][:300], "AAAA", *good["tokens"][301:]]
        swapped = [*good["tokens"][:300], good["tokens"][301], good["tokens"][300], *good["tokens"][302:]]
        for change in (
            {"pattern": rustbpe.CL100K_PATTERN},
            {"special_tokens": ["<|bos|>"]},
            {"tokens": tokens},
            {"tokens": swapped},
            {"tokens": good["tokens"][:-1]},
            {"sha256": "0" * 64},
        ):
            path.write_text(json.dumps(good | change))
            with pytest.raises(ValueError, match=r"t\.json is damaged"):
                rustbpe.Tokenizer.load(path)

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"format": "other", "version": 1}', "\xff"])
    def test_any_other_content_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "t.json"
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(ValueError, match=r"t\.json is not a rustbpe-tokenizer file"):
            rustbpe.Tokenizer.load(path)

    def test_every_truncation_is_refused(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        path = tmp_path / "t.json"
        special.save(path)
        data = path.read_bytes().rstrip()
        for length in [*range(0, len(data), 97), len(data) - 1]:
            path.write_bytes(data[:length])
            with pytest.raises(ValueError, match=r"t\.json"):
                rustbpe.Tokenizer.load(path)

    def test_a_failed_write_leaves_the_old_file(
        self, special: rustbpe.Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "t.json"
        path.write_text("old")

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            special.save(path)
        assert path.read_text() == "old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["t.json"]

    def test_a_missing_file_or_folder(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            rustbpe.Tokenizer.load(tmp_path / "none.json")
        with pytest.raises(FileNotFoundError):
            special.save(tmp_path / "none" / "t.json")


class TestTiktoken:
    def test_round_trip(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        special.save_tiktoken(tmp_path / "t.tiktoken")
        again = rustbpe.Tokenizer.from_tiktoken(tmp_path / "t.tiktoken", special.pattern, list(special.special_tokens))
        assert_equal(again, special)

    def test_tiktoken_reads_it(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        from tiktoken.load import load_tiktoken_bpe

        special.save_tiktoken(tmp_path / "t.tiktoken")
        assert load_tiktoken_bpe(str(tmp_path / "t.tiktoken")) == special.mergeable_ranks()

    def test_a_bad_line_is_named(self, special: rustbpe.Tokenizer, tmp_path: Path) -> None:
        path = tmp_path / "t.tiktoken"
        special.save_tiktoken(path)
        lines = path.read_text().splitlines()
        for bad in ("IQ==", "!!!! 5", "IQ== x", "IQ== 5 6", lines[3]):
            path.write_text("\n".join([*lines[:9], bad, *lines[10:]]))
            with pytest.raises(ValueError, match=r"t\.tiktoken line 10"):
                rustbpe.Tokenizer.from_tiktoken(path)

    def test_gpt4(self, monkeypatch: pytest.MonkeyPatch, documents: list[str]) -> None:
        """The published ranks. Some tokens cannot be produced by any sequence of merges."""
        import tiktoken

        cache = SHARED.parent / "tokenizers" / "tiktoken_cache"
        path = cache / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
        if not path.exists():
            pytest.skip(f"no cl100k ranks in {cache}")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        theirs = tiktoken.get_encoding("cl100k_base")
        ours = rustbpe.Tokenizer.from_tiktoken(path, rustbpe.CL100K_PATTERN)
        assert ours.n_mergeable == 100_256
        # All tokens that are text, end to end in three orders, for chunk boundaries that training never saw.
        tokens = [token.decode("utf-8", "ignore") for token in ours.mergeable_ranks()]
        for text in ("".join(tokens), "".join(reversed(tokens)), "".join(sorted(tokens)), *PROSE, *documents[:200]):
            assert ours.encode(text) == theirs.encode_ordinary(text)
        for token in tokens[::7]:
            assert ours.encode(token) == theirs.encode_ordinary(token)


@pytest.fixture(scope="module", params=["nanochat", "cl100k"])
def both(request: pytest.FixtureRequest) -> tuple[rustbpe.Tokenizer, tokenizers.Tokenizer]:
    pattern = {"nanochat": rustbpe.SPLIT_PATTERN, "cl100k": rustbpe.CL100K_PATTERN}[request.param]
    ours = rustbpe.train(PROSE * 2, 360, pattern=pattern, num_threads=1)
    return ours, tokenizers.Tokenizer.from_str(ours.to_hf_json())


class TestHuggingFace:
    @settings(max_examples=300, deadline=None)
    @given(text=st.text(st.one_of(st.characters(exclude_categories=["Cs", "Cn"]), st.sampled_from("eta '\n\t12."))))
    def test_equal_ids(self, both: tuple[rustbpe.Tokenizer, tokenizers.Tokenizer], text: str) -> None:
        ours, theirs = both
        ids = ours.encode(text)
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids) == text

    def test_equal_ids_on_prose(self, both: tuple[rustbpe.Tokenizer, tokenizers.Tokenizer], documents: list[str]) -> None:
        ours, theirs = both
        texts = [*PROSE, *documents[:50], "1234567 12\n \n  ", "x \n\n ", "\n"]
        assert [encoding.ids for encoding in theirs.encode_batch(texts)] == ours.encode_batch(texts)

    def test_special_tokens(self, special: rustbpe.Tokenizer) -> None:
        theirs = tokenizers.Tokenizer.from_str(special.to_hf_json())
        assert theirs.encode("<|bos|>a").ids == [special.special_tokens["<|bos|>"], *special.encode("a")]
        assert theirs.get_vocab_size() == special.vocab_size

    @pytest.mark.parametrize("pattern", [rustbpe.SPLIT_PATTERN, rustbpe.CL100K_PATTERN, r"\p{L}+|\P{L}+"])
    def test_round_trip(self, special: rustbpe.Tokenizer, pattern: str) -> None:
        tokenizer = rustbpe.Tokenizer(special.mergeable_ranks(), pattern=pattern, special_tokens=["<|x|>"])
        assert_equal(rustbpe.Tokenizer.from_hf_json(tokenizer.to_hf_json()), tokenizer)

    def test_a_tokenizer_trained_by_hugging_face(self) -> None:
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
            [
                tokenizers.pre_tokenizers.Split(tokenizers.Regex(rustbpe.SPLIT_PATTERN), "isolated"),
                tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=400, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
        )
        theirs.train_from_iterator(PROSE * 2, trainer)
        ours = rustbpe.Tokenizer.from_hf_json(theirs.to_str())
        for text in PROSE:
            assert ours.encode(text) == theirs.encode(text).ids

    def test_a_file_that_would_give_other_ids_is_refused(self, special: rustbpe.Tokenizer) -> None:
        # No merges produce the last token.
        odd = rustbpe.Tokenizer([*special.mergeable_ranks(), b"qzqzq"], special_tokens=["<|bos|>"])
        good = json.loads(odd.to_hf_json())
        rustbpe.Tokenizer.from_hf_json(json.dumps(good))
        byte_level = {"type": "ByteLevel", "use_regex": True, "add_prefix_space": True}
        merges = good["model"]["merges"]
        for change, message in [
            ({"pre_tokenizer": byte_level}, "pre_tokenizer"),
            ({"normalizer": {"type": "NFC"}}, "normalizer"),
            ({"model": good["model"] | {"type": "Unigram"}}, "BPE"),
            ({"model": good["model"] | {"merges": [merges[1], merges[0], *merges[2:]]}}, "merge 0"),
            ({"model": good["model"] | {"merges": merges[:-1]}}, "merges"),
            ({"added_tokens": [good["added_tokens"][0] | {"id": 9999}]}, "added tokens"),
            ({"model": {"type": "BPE"}}, "vocab"),
            ({"model": good["model"] | {"ignore_merges": False}}, "ignore_merges is off and 1 tokens"),
        ]:
            with pytest.raises(ValueError, match=message):
                rustbpe.Tokenizer.from_hf_json(json.dumps(good | change))
        for text in ("", "{}", "[]", "nonsense"):
            with pytest.raises(ValueError, match=r"not a byte-level|Expecting"):
                rustbpe.Tokenizer.from_hf_json(text)

"""Encoding equals tiktoken's exactly. Decoding loses nothing and reports bad input."""

import itertools
import pickle
import random
import time

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe
from tests.rustbpe.conftest import PROSE, tiktoken_of

TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("etaoin sh'\n12.,")), max_size=120)


@settings(max_examples=800, deadline=None)
@given(text=TEXTS)
def test_equal_to_tiktoken_and_back(tokenizer: rustbpe.Tokenizer, oracle: tiktoken.Encoding, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == oracle.encode_ordinary(text)
    assert tokenizer.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_equal_to_tiktoken_for_untrained_vocabularies(data: st.DataObject) -> None:
    """Tokens in any rank order, most of them unreachable by merges."""
    drawn = data.draw(st.lists(st.text(alphabet="abc", min_size=2, max_size=6), unique=True, max_size=30))
    tokens = [bytes([byte]) for byte in range(256)] + [token.encode() for token in drawn]
    ours = rustbpe.Tokenizer(tokens)
    theirs = tiktoken_of(ours)
    for _ in range(5):
        text = data.draw(st.text(alphabet="abc ", max_size=40))
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_equal_to_tiktoken_on_a_corpus(documents: list[str]) -> None:
    for pattern in (rustbpe.SPLIT_PATTERN, rustbpe.CL100K_PATTERN):
        tokenizer = rustbpe.train(documents, 8000, pattern=pattern)
        expected = tiktoken_of(tokenizer).encode_ordinary_batch(documents)
        assert tokenizer.encode_batch(documents, num_threads=2) == expected
        # The second time the chunks come from the cache.
        assert [tokenizer.encode(document) for document in documents] == expected


@pytest.mark.parametrize("text", ["\ud83d\ude42", "a\ud800b", "\udfff" * 3])
def test_surrogates_as_in_tiktoken(tokenizer: rustbpe.Tokenizer, oracle: tiktoken.Encoding, text: str) -> None:
    assert tokenizer.encode(text) == oracle.encode_ordinary(text)
    assert tokenizer.encode_batch([text]) == [oracle.encode_ordinary(text)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streamed_texts_are_encoded_as_if_alone(tokenizer: rustbpe.Tokenizer, oracle: tiktoken.Encoding, threads: int) -> None:
    """Texts of all character widths, short and longer than a batch. Every chunk occurs more than once."""
    draw = random.Random(threads)
    units = ["a", " ", "the", "\n", "’", "é", "한", "🙂", "\ud83d", "\ude42", "\t", ".", "1234", "'s", "\r\n", "ſ", "-" * 40]
    texts = ["".join(draw.choices(units, k=draw.choice([0, 1, 5, 50, 700]))) for _ in range(600)]
    texts += ["word " * 30_000, "wörd 한 \ud83d " * 9_000, "", "end"]
    bos = 7
    ids, offsets = tokenizer.encode_to_numpy(texts, bos=bos, num_threads=threads)
    rows = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets.tolist())]
    assert rows == [[bos, *oracle.encode_ordinary(text)] for text in texts]


def test_long_chunks_go_through_the_heap(tokenizer: rustbpe.Tokenizer, oracle: tiktoken.Encoding) -> None:
    generator = random.Random(3)
    for length in (95, 96, 97, 500, 3000):
        for alphabet in ("a", "ab", "etaoinsh", "中文字"):
            text = "".join(generator.choices(alphabet, k=length))
            assert tokenizer.encode(text) == oracle.encode_ordinary(text)


@pytest.mark.parametrize("kind", ["one letter", "no spaces", "spaces", "digits", "newlines", "marks", "CJK"])
def test_adversarial_text_takes_linear_time(tokenizer: rustbpe.Tokenizer, kind: str) -> None:
    """Four times the text may take at most nine times as long; quadratic time would take sixteen times."""
    generator = random.Random(5)
    unit = {
        "one letter": "a" * 4096,
        "no spaces": "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=4096)),
        "spaces": " " * 4096,
        "digits": "7" * 4096,
        "newlines": " \n" * 2048,
        "marks": "!?" * 2048,
        "CJK": "中文" * 1365,
    }[kind]

    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            ids = tokenizer.encode(text)
            best = min(best, time.thread_time() - started)
        assert tokenizer.decode(ids) == text
        return best

    small, large = seconds(unit * 64), seconds(unit * 256)
    assert large < 9 * small + 0.02
    assert large < 3


def test_special_tokens_are_never_emitted(tokenizer: rustbpe.Tokenizer) -> None:
    special = tokenizer.with_special_tokens(["<|bos|>", "<|end|>"])
    assert special.special_tokens == {"<|bos|>": tokenizer.n_mergeable, "<|end|>": tokenizer.n_mergeable + 1}
    assert special.vocab_size == tokenizer.n_mergeable + 2
    ids = special.encode("<|bos|>hello<|end|>")
    assert max(ids) < special.n_mergeable
    assert special.decode([special.n_mergeable, *ids]) == "<|bos|><|bos|>hello<|end|>"
    assert special.token_bytes(special.n_mergeable + 1) == b"<|end|>"


class TestBatch:
    def test_threads_keep_the_order(self, tokenizer: rustbpe.Tokenizer, documents: list[str]) -> None:
        texts = [*documents, "", *PROSE]
        expected = [tokenizer.encode(text) for text in texts]
        for threads in (0, 1, 2, 5):
            assert tokenizer.encode_batch(texts, num_threads=threads) == expected
        assert tokenizer.encode_batch([]) == []

    def test_one_huge_text_is_split_over_threads_without_effect(self, tokenizer: rustbpe.Tokenizer) -> None:
        """The text exceeds what one thread takes at a time. It has many positions to cut at, few, or none."""
        generator = random.Random(11)
        for weights in ((60, 20, 5, 5, 5, 5), (5, 5, 20, 20, 20, 30), (0, 0, 20, 20, 20, 40)):
            units = generator.choices(["word", " ", "'s ", "2024 ", "\n ", "é —"], weights=weights, k=150_000)
            huge = "".join(units)
            texts = [*PROSE, huge, "", huge[:200_000], *PROSE]
            expected = [tokenizer.encode(text) for text in texts]
            assert tokenizer.encode_batch(texts, num_threads=3) == expected
            ids, offsets = tokenizer.encode_to_numpy(texts, bos=7, num_threads=3)
            assert ids.tolist() == [id for text in expected for id in (7, *text)]
            assert np.diff(offsets).tolist() == [len(text) + 1 for text in expected]

    def test_numpy(self, tokenizer: rustbpe.Tokenizer) -> None:
        special = tokenizer.with_special_tokens(["<|bos|>"])
        bos = special.special_tokens["<|bos|>"]
        texts = [*PROSE, "", *PROSE]
        ids, offsets = special.encode_to_numpy(texts, bos=bos, num_threads=2)
        assert (ids.dtype, offsets.dtype, len(offsets)) == (np.uint16, np.int64, len(texts) + 1)
        for at, text in enumerate(texts):
            assert ids[offsets[at] : offsets[at + 1]].tolist() == [bos, *special.encode(text)]
        ids, offsets = special.encode_to_numpy(texts)
        assert ids.tolist() == [id for text in texts for id in special.encode(text)]
        ids, offsets = special.encode_to_numpy([])
        assert (ids.tolist(), offsets.tolist()) == ([], [0])
        assert special.encode_to_numpy([""])[0].dtype == np.uint16

    def test_the_width_follows_the_vocabulary(self) -> None:
        tokens = [bytes([byte]) for byte in range(256)]
        tokens += [bytes([left, right]) for left in range(255) for right in range(256)]
        at_most = rustbpe.Tokenizer(tokens)
        assert at_most.vocab_size == 1 << 16
        assert at_most.encode_to_numpy(["zz"])[0].dtype == np.uint16
        wider = at_most.with_special_tokens(["<|bos|>"])
        ids, _ = wider.encode_to_numpy(["zz"], bos=1 << 16)
        assert ids.dtype == np.uint32
        assert ids.tolist() == [1 << 16, *wider.encode("zz")]

    def test_errors_name_the_bad_input(self, tokenizer: rustbpe.Tokenizer) -> None:
        with pytest.raises(ValueError, match=str(tokenizer.vocab_size)):
            tokenizer.encode_to_numpy(["a"], bos=tokenizer.vocab_size)
        with pytest.raises(TypeError, match=r"texts\[1\]"):
            tokenizer.encode_batch(["a", 3])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="texts is a str"):
            tokenizer.encode_batch("abc")
        with pytest.raises(TypeError):
            tokenizer.encode(b"abc")  # type: ignore[arg-type]


class TestDecode:
    def test_any_sequence_of_ids(self, tokenizer: rustbpe.Tokenizer) -> None:
        ids = tokenizer.encode(PROSE[0])
        kinds = (np.uint16, np.uint32, np.int32, np.int64, np.uint64)
        for form in (ids, tuple(ids), iter(ids), *(np.array(ids, kind) for kind in kinds), np.array(ids)[::1]):
            assert tokenizer.decode(form) == PROSE[0]
        assert tokenizer.decode(np.array(ids)[::-1]) == tokenizer.decode(ids[::-1])
        assert tokenizer.decode([]) == ""

    def test_bytes_that_are_not_utf8(self, tokenizer: rustbpe.Tokenizer) -> None:
        broken = list(b"ab\xff\xe4\xb8")
        assert tokenizer.decode_bytes(broken) == b"ab\xff\xe4\xb8"
        with pytest.raises(UnicodeDecodeError, match="0xff in position 2"):
            tokenizer.decode(broken)
        assert tokenizer.decode(broken, "replace") == "ab\ufffd\ufffd"
        assert tokenizer.decode(broken, errors="ignore") == "ab"

    @pytest.mark.parametrize("bad", [-1, 450, 2**31, 2**40])
    def test_an_id_out_of_range(self, tokenizer: rustbpe.Tokenizer, bad: int) -> None:
        message = rf"id {bad} is out of range: 0 to 449"
        for call in (tokenizer.token_bytes, tokenizer.stream_decoder().push):
            with pytest.raises(ValueError, match=message):
                call(bad)
        for ids in ([1, bad], np.array([1, bad])):
            with pytest.raises(ValueError, match=message):
                tokenizer.decode(ids)

    @settings(max_examples=400, deadline=None)
    @given(ids=st.lists(st.integers(0, 449), max_size=40))
    def test_a_stream_never_breaks_a_character(self, tokenizer: rustbpe.Tokenizer, ids: list[int]) -> None:
        stream = tokenizer.stream_decoder()
        pieces = [stream.push(id) for id in ids]
        assert "".join(pieces) + stream.finish() == tokenizer.decode(ids, "replace")
        assert stream.finish() == ""

    def test_a_stream_holds_back_unfinished_characters(self, tokenizer: rustbpe.Tokenizer) -> None:
        stream = tokenizer.stream_decoder()
        assert [stream.push(byte) for byte in "🙂é".encode()] == ["", "", "", "🙂", "", "é"]


class TestVocabulary:
    def test_a_mapping_and_a_sequence_are_the_same(self, tokenizer: rustbpe.Tokenizer) -> None:
        ranks = tokenizer.mergeable_ranks()
        assert list(ranks.values()) == list(range(450))
        shuffled = dict(random.Random(0).sample(list(ranks.items()), len(ranks)))
        for form in (ranks, shuffled, list(ranks)):
            assert rustbpe.Tokenizer(form).mergeable_ranks() == ranks
        assert repr(tokenizer) == "Tokenizer(n_mergeable=450, special_tokens=0)"

    def test_errors_name_what_is_wrong(self) -> None:
        tokens = [bytes([byte]) for byte in range(256)]
        for ranks, message in [
            (tokens[:65] + tokens[66:], "0x41"),
            ([*tokens, b"ab", b"ab"], "256 and 257"),
            ([*tokens, b""], "256 is empty"),
            (dict(zip(tokens, range(1, 257), strict=True)), "rank 256 is out of range"),
            (dict(zip(tokens, [0, 0, *range(2, 256)], strict=True)), "rank 0 is given twice"),
            (dict(zip(tokens, [-1, *range(1, 256)], strict=True)), "rank -1 is out of range"),
        ]:
            with pytest.raises(ValueError, match=message):
                rustbpe.Tokenizer(ranks)
        with pytest.raises(ValueError, match="named twice"):
            rustbpe.Tokenizer(tokens, special_tokens=["<|a|>", "<|a|>"])
        with pytest.raises(ValueError, match="name is empty"):
            rustbpe.Tokenizer(tokens, special_tokens=[""])
        with pytest.raises(ValueError, match="empty string"):
            rustbpe.Tokenizer(tokens, pattern="x*")

    def test_can_be_sent_to_worker_processes(self, tokenizer: rustbpe.Tokenizer) -> None:
        special = tokenizer.with_special_tokens(["<|bos|>"])
        copy = pickle.loads(pickle.dumps(special))
        assert copy.encode(PROSE[1]) == special.encode(PROSE[1])
        assert copy.special_tokens == special.special_tokens

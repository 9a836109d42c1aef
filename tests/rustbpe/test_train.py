"""Training equals the reference for any number of threads, and fails cleanly."""

import _thread
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe
from tests.rustbpe import reference
from tests.rustbpe.conftest import PROSE

WORDS = st.lists(st.text(alphabet="aab ", min_size=0, max_size=30), min_size=1, max_size=12)


def tokens_of(tokenizer: rustbpe.Tokenizer) -> list[bytes]:
    return list(tokenizer.mergeable_ranks())


@settings(max_examples=150, deadline=None)
@given(texts=WORDS, extra=st.integers(0, 40))
def test_equal_to_the_slow_reference(texts: list[str], extra: int) -> None:
    expected = reference.train(texts, 256 + extra, rustbpe.SPLIT_PATTERN)
    if not "".join(texts):
        return
    assert tokens_of(rustbpe.train(texts, len(expected), num_threads=2)) == expected


@pytest.mark.parametrize("pattern", [rustbpe.SPLIT_PATTERN, rustbpe.CL100K_PATTERN, r"\p{L}+|\P{L}"])
def test_equal_to_the_slow_reference_on_prose(pattern: str) -> None:
    assert tokens_of(rustbpe.train(PROSE, 330, pattern=pattern)) == reference.train(PROSE, 330, pattern)


def test_equal_to_the_slow_reference_on_a_corpus(documents: list[str]) -> None:
    texts = documents[:30]
    assert tokens_of(rustbpe.train(texts, 400)) == reference.train(texts, 400, rustbpe.SPLIT_PATTERN)


def test_threads_and_order_do_not_matter(documents: list[str]) -> None:
    expected = tokens_of(rustbpe.train(documents, 3000, num_threads=1))
    for threads in (2, 3, 8):
        assert tokens_of(rustbpe.train(iter(documents), 3000, num_threads=threads)) == expected
    assert tokens_of(rustbpe.train(documents[::-1], 3000)) == expected
    # One huge text instead of many. A document always starts a new chunk here.
    assert tokens_of(rustbpe.train([f"{document}\n" for document in documents], 3000)) == tokens_of(
        rustbpe.train(["".join(f"{document}\n" for document in documents)], 3000)
    ) or any(document[:1].isspace() for document in documents)


def test_256_tokens_are_the_bytes() -> None:
    assert tokens_of(rustbpe.train(["x"], 256)) == [bytes([byte]) for byte in range(256)]


def test_progress_runs_from_zero_to_all_merges() -> None:
    seen: list[tuple[int, int]] = []
    rustbpe.train(PROSE, 300, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 44)
    assert seen[-1] == (44, 44)
    assert seen == sorted(seen)


@pytest.mark.parametrize("size", [255, 0, -1, 2**31, 2**40])
def test_vocab_size_out_of_range(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        rustbpe.train(PROSE, size)


def test_more_tokens_than_the_text_allows() -> None:
    with pytest.raises(ValueError, match=r"vocab_size 1000 .* 258 tokens"):
        rustbpe.train(["abc"], 1000)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_an_empty_corpus(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="empty"):
        rustbpe.train(texts, 256)


def test_a_bad_number_of_threads() -> None:
    with pytest.raises(ValueError, match="-1"):
        rustbpe.train(PROSE, 300, num_threads=-1)


def test_texts_that_are_not_strings() -> None:
    with pytest.raises(TypeError, match=r"texts\[1\].*bytes"):
        rustbpe.train(["a", b"b"], 300)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="texts is a str"):
        rustbpe.train("abc", 300)


def test_an_iterator_that_raises() -> None:
    def texts() -> Iterator[str]:
        yield from PROSE * 1000
        raise LookupError("the shelf is bare")

    with pytest.raises(LookupError, match="the shelf is bare"):
        rustbpe.train(texts(), 300)


def test_a_progress_callback_that_raises() -> None:
    def progress(done: int, total: int) -> None:
        raise LookupError(done)

    with pytest.raises(LookupError):
        rustbpe.train(PROSE, 300, progress=progress)


def test_control_c_while_reading() -> None:
    def texts() -> Iterator[str]:
        for at in range(1 << 40):
            if at == 50:
                _thread.interrupt_main()
            yield "some words " * 1000

    with pytest.raises(KeyboardInterrupt):
        rustbpe.train(texts(), 300)


def test_control_c_while_merging(documents: list[str]) -> None:
    """The interrupt comes from another thread, after merging has begun."""
    started = threading.Event()

    def interrupt() -> None:
        started.wait()
        _thread.interrupt_main()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        rustbpe.train(documents, 25_000, progress=lambda done, total: started.set())
    started.set()
    thread.join()


def test_one_endless_word_takes_linear_time() -> None:
    """A chunk of a million letters. Rewriting it at every occurrence would take hours."""
    generator = random.Random(2)
    text = "".join(generator.choices("abcdefghijklmnop", k=1_000_000))
    started = time.thread_time()
    tokenizer = rustbpe.train([text], 5000)
    assert time.thread_time() - started < 20
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_other_threads_run_meanwhile(documents: list[str]) -> None:
    ticks = 0
    done = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not done.wait(0.001):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    rustbpe.train(documents * 3, 20_000)
    elapsed = time.monotonic() - started
    done.set()
    thread.join()
    assert ticks > 20 * elapsed


def test_surrogates_train_as_replacement_characters() -> None:
    assert tokens_of(rustbpe.train(["\ud800\ud800 ab"], 259)) == tokens_of(rustbpe.train(["\ufffd\ufffd ab"], 259))


class TestParquet:
    def write(self, path: Path, rows: list[str | None], kind: pyarrow.DataType | None = None) -> Path:
        table = pyarrow.table({"text": pyarrow.array(rows, kind or pyarrow.string())})
        pyarrow.parquet.write_table(table, path, row_group_size=3)
        return path

    def test_equal_to_training_on_the_strings(self, tmp_path: Path) -> None:
        paths = [self.write(tmp_path / f"{at}.parquet", PROSE[at:] + PROSE) for at in range(3)]
        texts = [text for at in range(3) for text in PROSE[at:] + PROSE]
        assert tokens_of(rustbpe.train_parquet(paths, 400)) == tokens_of(rustbpe.train(texts, 400))

    @pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
    def test_other_string_types_and_nulls(self, tmp_path: Path, kind: pyarrow.DataType) -> None:
        path = self.write(tmp_path / "a.parquet", [None, *PROSE, None, *PROSE, None], kind)
        assert tokens_of(rustbpe.train_parquet([path], 400)) == tokens_of(rustbpe.train(PROSE * 2, 400))

    def test_limits_count_characters(self, tmp_path: Path) -> None:
        rows = ["αβγδε ζη", "éèê", "one two three", "never read"]
        path = self.write(tmp_path / "a.parquet", rows)
        cut = ["αβγδε", "éèê", "one t"]
        limited = rustbpe.train_parquet([path], 262, doc_cap=5, max_chars=9)
        assert tokens_of(limited) == tokens_of(rustbpe.train(cut, 262))
        unlimited = rustbpe.train_parquet([path], 262, doc_cap=5, max_chars=14)
        assert tokens_of(unlimited) == tokens_of(rustbpe.train([*cut, "never"], 262))

    def test_a_corpus_file(self, shards: list[Path], documents: list[str]) -> None:
        chars = sum(map(len, documents))
        from_file = rustbpe.train_parquet(shards[:1], 5000, max_chars=chars)
        assert tokens_of(from_file) == tokens_of(rustbpe.train(documents, 5000))

    def test_errors_name_what_is_wrong(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "a.parquet", PROSE)
        with pytest.raises(ValueError, match="no column 'words'"):
            rustbpe.train_parquet([path], 300, column="words")
        with pytest.raises(FileNotFoundError):
            rustbpe.train_parquet([path, tmp_path / "b.parquet"], 300)
        with pytest.raises(ValueError, match="max_chars 0"):
            rustbpe.train_parquet([path], 300, max_chars=0)
        with pytest.raises(TypeError, match="one path"):
            rustbpe.train_parquet(str(path), 300)
        numbers = tmp_path / "n.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), numbers)
        with pytest.raises(ValueError, match="int64"):
            rustbpe.train_parquet([numbers], 300)

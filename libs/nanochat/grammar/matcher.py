"""Compiled grammars over a tokenizer's vocabulary: which tokens may come next in each answer.

llguidance does the work (decision 7): an Earley parser over a lexer of derivatives of regular expressions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nanochat.grammar.grammar import Grammar, GrammarError, explained

if TYPE_CHECKING:  # llguidance is imported with the first grammar: without one, the engine does not need it
    from llguidance import LLExecutor, LLMatcher, LLTokenizer

    from nanochat.tokenizer import Tokenizer

CACHED = 32
# A step keeps llguidance's own bounds: 200,000 units of lexer work (about 14 ms) and 50,000 parser items (2.5 ms). A state of the
# lexer takes 1 to 2 kB, so the default of 250,000 would be half a gigabyte for one answer; 1,500 tokens of words need 2,500.
MAX_LEXER_STATES = 20_000


class Vocabulary:
    """The bytes of every token, as llguidance reads a tokenizer. The tokens `ends` may follow a complete text."""

    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], special: Sequence[int], ends: Sequence[int], encode: Callable[[str], list[int]]
    ):
        self.tokens, self.special_token_ids, self._encode = tokens, special, encode
        self.eos_token_id, self.ends, self.size = ends[0], list(ends), len(tokens)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """An answer may end with `<|assistant_end|>` or, as a document does, with `<|bos|>`."""
        special = list(tokenizer.bpe.special_tokens.values())
        ends = [tokenizer.special("<|assistant_end|>"), tokenizer.bos]
        tokens = [tokenizer.bpe.token_bytes(token) for token in range(tokenizer.vocab_size)]
        return cls(tokens, special, ends, tokenizer.encode)

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode(errors="replace"))

    def compiled(self) -> LLTokenizer:
        """llguidance's tree of the tokens; takes 0.15 s for 65,536 tokens."""
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(self), eos_token=self.ends)


class Matcher:
    """Follows one answer. `take` its tokens in order.

    It fails when a token does not fit the grammar, or when the next step exceeds the bounds on work. Then only an end is allowed.
    Copies of one llguidance matcher share the states of their lexer, and so their bound. When they are used up, the matcher gets
    states of its own from `fresh` and takes the same tokens again; so it never fails because of what another answer has used.
    """

    def __init__(self, inner: LLMatcher, vocabulary: Vocabulary, fresh: Callable[[], LLMatcher]):
        self.inner, self.vocabulary = inner, vocabulary
        self._fresh: Callable[[], LLMatcher] | None = fresh
        self._taken: list[int] = []

    @property
    def failed(self) -> bool:
        return self.inner.is_error()

    @property
    def complete(self) -> bool:
        """Whether the text so far is a complete answer. It may still be possible to continue it."""
        return self.inner.is_accepting()

    def take(self, token: int) -> None:
        self._taken.append(token)
        if not self.inner.is_stopped():
            self.inner.consume_token(token)
        self.renew_if_failed()

    def renew_if_failed(self) -> bool:
        """Whether it had failed and now has states of its own. Happens at most once."""
        if not self.failed or self._fresh is None:
            return False
        self.inner, self._fresh = self._fresh(), None
        self.inner.consume_tokens(self._taken)
        return True


class Grammars:
    """The grammars in use, compiled over one vocabulary. Threads may share it."""

    def __init__(self, vocabulary: Callable[[], Vocabulary]):
        self._make_vocabulary = vocabulary
        self._lock = threading.Lock()
        self._vocabulary: tuple[Vocabulary, LLTokenizer] | None = None
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def matcher(self, grammar: Grammar) -> Matcher:
        """A matcher at the start of an answer. Raises GrammarError when the grammar cannot be used."""
        vocabulary, tokenizer = self._tree()
        with self._lock:
            shared = self._compiled.get(grammar)
        if shared is None:  # outside the lock: other threads go on while this one compiles
            shared = _compiled(grammar, tokenizer)
        with self._lock:
            self._compiled[grammar] = shared
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > CACHED:
                self._compiled.popitem(last=False)
        return Matcher(shared.deep_copy(), vocabulary, lambda: self._again(grammar, shared))

    def _tree(self) -> tuple[Vocabulary, LLTokenizer]:
        with self._lock:
            if self._vocabulary is None:
                vocabulary = self._make_vocabulary()
                self._vocabulary = vocabulary, vocabulary.compiled()
            return self._vocabulary

    def _again(self, grammar: Grammar, used_up: LLMatcher) -> LLMatcher:
        with self._lock:
            if self._compiled.get(grammar) is used_up:
                del self._compiled[grammar]
        return _compiled(grammar, self._tree()[1])


_executor: LLExecutor | None = None


def allowed(matchers: Sequence[Matcher]) -> np.ndarray:
    """The tokens that may come next in each answer, (N, ceil(V / 32)) int32: bit b of word w stands for token 32 w + b."""
    from llguidance import LLExecutor

    global _executor
    _executor = _executor or LLExecutor()  # threads, which exist only where a grammar is in use
    bits = np.zeros((len(matchers), -(-matchers[0].vocabulary.size // 32)), dtype=np.int32)
    going = [(i, matcher) for i, matcher in enumerate(matchers) if not matcher.failed]
    while going:
        jobs = [(matcher.inner, i) for i, matcher in going]
        _executor.unsafe_compute_mask_ptr(jobs, bits.ctypes.data, bits.strides[0], len(matchers))
        going = [(i, matcher) for i, matcher in going if matcher.renew_if_failed() and not matcher.failed]
    for i, matcher in enumerate(matchers):
        if matcher.failed:
            bits[i] = 0
            for end in matcher.vocabulary.ends:
                bits[i, end // 32] |= np.int32(np.uint32(1 << (end % 32)).view(np.int32))
    return bits


def _compiled(grammar: Grammar, tokenizer: LLTokenizer) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    try:
        source = grammar.source()
    except ValueError as err:
        raise GrammarError(explained(str(err))) from err
    limits = LLParserLimits(max_lexer_states=MAX_LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokenizer, source, log_level=0, limits=limits)
    first = matcher.deep_copy()
    if not first.is_error():
        first.compute_bitmask()  # a grammar that no text fits fails here
    if first.is_error():
        raise GrammarError(explained(first.get_error()))
    return matcher

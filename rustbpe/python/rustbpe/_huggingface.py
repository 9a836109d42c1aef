"""Converts to and from `tokenizer.json` of Hugging Face `tokenizers`."""

import json
from typing import Any, NamedTuple

from rustbpe import _rustbpe

# Hugging Face compiles patterns with Oniguruma, where `{1,3}+` repeats instead of being
# possessive, and `$` is the end of a line. These patterns match the same in its syntax:
_SPELLING = {
    _rustbpe.CL100K_PATTERN: (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++\z|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}
_PATTERN_OF = {theirs: ours for ours, theirs in _SPELLING.items()}


def byte_alphabet() -> list[str]:
    """The character that represents each byte in a byte-level vocabulary.

    Printable Latin-1 characters represent themselves. The other 68 bytes are mapped, in
    order, to U+0100 and up (as in GPT-2's published encoder).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(moved)) for byte in range(256)]


def dump(tokenizer: _rustbpe.Tokenizer) -> str:
    """The `tokenizer.json` with which Hugging Face `tokenizers` produces the same ids."""
    alphabet = byte_alphabet()
    names = ["".join(alphabet[byte] for byte in token) for token in tokenizer._tokens()]
    pattern = _SPELLING.get(tokenizer.pattern, tokenizer.pattern)
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    added = [
        {
            "id": id,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name, id in tokenizer.special_tokens.items()
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        # A chunk that is a token becomes that token, even if no merges produce it.
        "ignore_merges": True,
        "vocab": {name: id for id, name in enumerate(names)},
        "merges": [[names[left], names[right]] for left, right, _ in tokenizer._merge_rules()],
    }
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": model,
    }
    return json.dumps(data, ensure_ascii=False)


class Parsed(NamedTuple):
    tokens: list[bytes]
    pattern: str
    special_tokens: list[str]
    merges: list[tuple[bytes, bytes]]
    ignore_merges: bool


def parse(text: str) -> Parsed:
    """Read a byte-level BPE `tokenizer.json`. Raises ValueError for any other kind."""
    try:
        data = json.loads(text)
        pattern = _split_pattern(data)
        model, added = data["model"], data.get("added_tokens") or []
        if model["type"] != "BPE" or data.get("normalizer"):
            raise ValueError("only byte-level BPE without a normalizer is supported")
        tokens, specials = _tokens(model["vocab"], added)
        merges = [_pair(merge) for merge in model["merges"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a byte-level BPE tokenizer.json: {error!r}") from error
    return Parsed(tokens, pattern, specials, merges, bool(model.get("ignore_merges")))


def check_merges(tokenizer: _rustbpe.Tokenizer, merges: list[tuple[bytes, bytes]], *, whole_chunks: bool) -> None:
    """Raise ValueError unless `merges` are exactly the merges that the ranks imply.

    `whole_chunks` is Hugging Face's `ignore_merges`: a chunk that is a token becomes that
    token, which is always so in rustbpe. Without it, a token that no merges produce would
    get its id only from rustbpe.
    """
    tokens = tokenizer._tokens()
    implied = [(tokens[left], tokens[right]) for left, right, _ in tokenizer._merge_rules()]
    for at, (mine, theirs) in enumerate(zip(implied, merges, strict=False)):
        if mine != theirs:
            raise ValueError(f"merge {at} is {theirs}, but the vocabulary's ranks imply {mine}")
    if len(implied) != len(merges):
        raise ValueError(f"there are {len(merges)} merges, but the vocabulary's ranks imply {len(implied)}")
    unreachable = len(tokens) - 256 - len(implied)
    if unreachable and not whole_chunks:
        raise ValueError(f"ignore_merges is off and {unreachable} tokens cannot be produced by merges")


def _split_pattern(data: dict[str, Any]) -> str:
    steps = data["pre_tokenizer"]
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    match steps:
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated"} as split,
            {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
        ] if not split.get("invert"):
            return _PATTERN_OF.get(pattern, pattern)
    raise ValueError(
        "pre_tokenizer must be Split by a regex (Isolated), then ByteLevel without its own "
        f"regex and prefix space; found {[step.get('type') for step in steps]}"
    )


def _tokens(vocab: dict[str, int], added: list[dict[str, Any]]) -> tuple[list[bytes], list[str]]:
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    specials = {entry["content"]: entry["id"] for entry in added}
    ranks = {name: id for name, id in vocab.items() if name not in specials}
    names = sorted(ranks, key=ranks.__getitem__)
    if [ranks[name] for name in names] != list(range(len(names))):
        raise ValueError(f"vocabulary ids are not 0 to {len(names) - 1}")
    last = len(names) + len(specials)
    if sorted(specials.values()) != list(range(len(names), last)):
        raise ValueError(f"added tokens must have the ids {len(names)} to {last - 1}")
    try:
        tokens = [bytes(byte_of[character] for character in name) for name in names]
    except KeyError as error:
        raise ValueError(f"character {error} is outside the byte-level alphabet") from error
    return tokens, sorted(specials, key=specials.__getitem__)


def _pair(merge: str | list[str]) -> tuple[bytes, bytes]:
    """A merge in either notation: `"a b"` in older files, or `["a", "b"]`."""
    byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return (
        bytes(byte_of[character] for character in left),
        bytes(byte_of[character] for character in right),
    )

"""Extract plain English paragraphs from documentation. Markup is removed; code, tables and signatures are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Blocks that are not prose: fenced code, doctest sessions (up to the next empty line), and HTML comments.
_BLOCKS = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[^\n]*$|^[ \t]*>>>.*?(?=\n[ \t]*\n|\Z)|<!--.*?-->", re.DOTALL | re.MULTILINE)
_RULES = "=-~^#*+\"'.`_:"
_UNDERLINE = re.compile(r"[=\-~^#*+\"'.`_: ]{3,}")
_BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|#{1,6}|@?param\b|:(?:param|arg|type|raises?|returns?|rtype)\b[^:\n]*:)\s+")
_FIELD = re.compile(r"[*`\w.]+(?:\s*\([^)]*\))?\s*:(?!:)(\s|$)")  # "name : type", "name (type): meaning"

# (marker, pattern, replacement), applied in this order to a piece that contains the marker.
_INLINE = (
    ("](", re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),  # markdown image
    ("](", re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),  # markdown link
    (":`", re.compile(r":[\w:+.-]+:`~?!?([^`<]+?)(?:\s*<[^>]*>)?`"), r"\1"),  # reST role
    ("<", re.compile(r"`([^`<]+?)\s*<[^>`]*>`_{0,2}"), r"\1"),  # reST link
    ("`", re.compile(r"``([^`]+)``"), r"\1"),
    ("`", re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    ("**", re.compile(r"\*\*([^*\s][^*]*)\*\*"), r"\1"),
    ("*", re.compile(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)"), r"\1"),
    ("://", re.compile(r"\s*\(?<?\bhttps?://[^\s)>]+>?\)?"), ""),
    ("]_", re.compile(r"\s*\[\w+\]_"), ""),  # citation
    ("<", re.compile(r"</?[a-zA-Z][^>]{0,80}>"), ""),
)
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been but by can do does for from has have if in into is it its may must no not of on one or "
        "other should so some such than that the their then there these they this to was we when where which will with would "
        "you your all any also because each how more most only what while who",
    )
)
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_CODE = re.compile(r"[{}\[\]<>=\\|_$@#;~^*+`/]|\w\.\w|\(\)|[a-z][A-Z]|\d\d")
_ENDS = (".", "!", "?", ":", ")", '"')
MIN_CHARS, MIN_WORDS = 60, 9


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of `text` that read as English prose, each on one line, in order."""
    text = _BLOCKS.sub("\n\n", text.expandtabs(4))
    literal_at: int | None = None  # a literal block lasts while the indentation is larger than this
    for block in re.split(r"\n[ \t]*\n", text):
        lines = [line for line in block.split("\n") if line.strip()]
        if not lines:
            continue
        indent = len(lines[0]) - len(lines[0].lstrip())
        if literal_at is not None and indent > literal_at:
            continue
        literal_at = None
        if lines[0].lstrip().startswith(".. "):  # a reST directive or comment, whose body is indented
            literal_at = indent
            continue
        if lines[-1].rstrip().endswith("::"):
            literal_at = len(lines[-1]) - len(lines[-1].lstrip())
        if len(block) < MIN_CHARS:
            continue
        for piece in _pieces(lines):
            if len(piece) < MIN_CHARS or piece.count(" ") < MIN_WORDS - 1 or not piece.endswith(_ENDS):
                continue
            paragraph = _plain(piece)
            if _is_prose(paragraph):
                yield paragraph


def _pieces(lines: list[str]) -> Iterator[str]:
    """Join the lines of a block into pieces. A bullet, a field or a new indentation starts a new piece."""
    piece: list[str] = []
    last = -1
    for line in lines:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped[0] in _RULES and _UNDERLINE.fullmatch(stripped):
            piece = []  # the underlined line before was a heading
            continue
        bullet = _BULLET.match(stripped)
        field = None if bullet or ":" not in stripped else _FIELD.match(stripped)
        starts = bool(bullet or field)
        if piece and (starts or indent < last or (indent > last and len(piece) > 1)):
            yield " ".join(piece)
            piece = []
        if bullet:
            stripped = stripped[bullet.end() :]
        elif field:
            stripped = stripped[field.end() :]
            indent = -1  # the description of a field may continue at any indentation
        if stripped:
            piece.append(stripped)
        last = indent if not (bullet or indent < 0) else 10_000 if indent < 0 else indent
    if piece:
        yield " ".join(piece)


def _plain(piece: str) -> str:
    for marker, pattern, plain in _INLINE:
        if marker in piece:
            piece = pattern.sub(plain, piece)
    piece = " ".join(piece.split())
    return piece[:-1] if piece.endswith("::") else piece


def _is_prose(text: str) -> bool:
    if len(text) < MIN_CHARS or not (text[0].isupper() or text[0] in "\"'(") or not text.endswith(_ENDS):
        return False
    if not text.isascii() and sum(not c.isascii() for c in text) > len(text) // 50:
        return False
    words = _WORD.findall(text)
    if len(words) < MIN_WORDS:
        return False
    common = sum(w in _COMMON for w in text.lower().split())
    letters = sum(map(len, words)) + text.count(" ")
    return common >= 0.28 * len(words) and letters >= 0.9 * len(text) and len(_CODE.findall(text)) <= len(words) // 12

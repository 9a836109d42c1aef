"""A rendered conversation for the terminal: what is learned stands out."""

from __future__ import annotations

from typing import Any

from rich.text import Text

LEARNED, READ = "bold green", "dim"
NAMED = {"<|user_start|>", "<|assistant_start|>", "<|python_start|>", "<|output_start|>"}  # each begins a line


def shown(conversation: dict[str, Any], *, colored: bool) -> Text:
    """`conversation` is one of `nanochat.chats.rendering.Rendered`. Without colours, [[ ]] enclose what SFT learns."""
    tokens, trained, cut = len(conversation["tokens"]), conversation["trained"], conversation["cut"]
    share = f"{trained:,} of {tokens:,} tokens are learned in SFT ({trained / max(1, tokens):.0%})"
    out = Text().append(f"{conversation['source']}, {conversation['place']}: {share}; midtraining learns all\n", style="bold")
    open_mark = False
    for span in conversation["spans"]:
        if not colored and span["trained"] != open_mark:
            out.append("[[" if span["trained"] else "]]")
            open_mark = span["trained"]
        for part in _lines(span):
            out.append(part, style=LEARNED if span["trained"] else READ)
    if open_mark:
        out.append("]]")
    if cut:
        out.append(f"\n… {cut:,} tokens more, cut off", style="yellow")
    out.append("\n")
    return out


def _lines(span: dict[str, Any]) -> list[str]:
    """The text of a span; a special token that begins a part of the conversation begins a line."""
    if not span["special"]:
        return [span["text"]]
    names = span["text"].replace("|><|", "|>\n<|").split("\n")
    return [f"\n{name}" if name in NAMED else name for name in names]

"""Answers as HTML: Markdown is rendered, markup of the model is text, and nothing is fetched."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from services.ui.chat.markdown import blocks

SHOWN = "p h1 h2 h3 h4 h5 h6 ul ol li pre code em strong s blockquote table thead tbody tr th td a br hr"
ALLOWED = set(SHOWN.split())


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        'a <img src=x onerror="alert(1)"> b',
        "![picture](https://evil.example/x.png)",
        "![picture][1]\n\n[1]: https://evil.example/x.png",
        "[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>) [vb](vbscript:x)",
        "[entity](java&#115;cript:alert(1)) <javascript:alert(1)>",
        '<a href="https://evil.example" onclick="alert(1)">x</a>',
        "<svg/onload=alert(1)><iframe src=//evil.example>",
        "```html\n<script>alert(1)</script>\n```",
        "| <b>a</b> |\n|---|\n| <img src=x> |",
        '[x](https://a.example "\\"><script>alert(1)</script>")',
    ],
)
def test_no_markup_of_the_model_gets_through(text: str) -> None:
    tags = Tags("".join(blocks(text))).found
    assert {tag for tag, _ in tags} <= ALLOWED
    for _, attributes in tags:
        assert set(attributes) <= {"href", "title", "target", "rel", "class", "start", "style"}
        assert (attributes.get("href") or "https://").startswith(("http://", "https://", "mailto:"))


def test_markdown_is_rendered_block_by_block() -> None:
    text = "# Title\n\nSome *words*\nand a line.\n\n- one\n- two\n\n```py\nx < 1\n```\n\n| a |\n|---|\n| 1 |"
    assert [block.split(">")[0].strip("<") for block in blocks(text)] == ["h1", "p", "ul", "pre", "table"]
    assert "<br" in blocks(text)[1]
    assert "x &lt; 1" in blocks(text)[3]


def test_only_the_last_blocks_change_while_a_text_grows() -> None:
    text = "One.\n\nTwo **bold** and\n\n- three\n- four"
    before: list[str] = []
    for end in range(1, len(text) + 1):
        now = blocks(text[:end])
        assert now[: len(before) - 1] == before[:-1]
        before = now

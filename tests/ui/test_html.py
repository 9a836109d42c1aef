"""The dashboard's HTML: text from elsewhere stays text, and only the templates hold markup."""

from __future__ import annotations

import ast
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

import services.ui
from services.ui import pages
from services.ui.access.sessions import Visitor

FOLDER = Path(services.ui.__file__).parent
HARMLESS = "plain"
HOSTILE = """</td></div><script>alert(1)</script><img src=x onerror="alert(2)"> ' " & &amp; {{ 1 + 1 }}"""


PANELS: dict[str, Callable[[str], str]] = {
    "header of every page": lambda text: pages.top(text, Visitor(text, text, text, text, text)),
}


class Parsed(HTMLParser):
    """The tags of a page with the names of their attributes, the values of these, and the text between the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.attributes = self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.attributes += "".join(value or "" for _, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("panel", PANELS)
def test_hostile_text_is_shown_as_it_is_and_adds_no_markup(panel: str) -> None:
    harmless, hostile = (Parsed(PANELS[panel](text)) for text in (HARMLESS, HOSTILE))
    assert hostile.tags == harmless.tags
    assert HOSTILE in hostile.text + hostile.attributes


def test_markup_stands_in_the_templates_and_nowhere_else() -> None:
    for file in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                assert not any("</" in str(part.value) for part in node.values if isinstance(part, ast.Constant)), (
                    f"{file.name}:{node.lineno} builds HTML by hand; write a template in {FOLDER / 'templates'}"
                )


def test_no_template_turns_the_escaping_off() -> None:
    templates = list((FOLDER / "templates").glob("*.html"))
    assert templates
    for template in templates:
        text = template.read_text(encoding="utf-8")
        assert "safe" not in text, template.name
        assert "autoescape" not in text, template.name

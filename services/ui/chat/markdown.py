"""An answer's Markdown as HTML that is safe to show: no tag, image or script of the model gets through.

Tags are shown as text. An image becomes a link, because the browser would fetch it. Links to anything but web pages and mail
stay text.
"""

from __future__ import annotations

from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

SAFE_SCHEMES = ("http:", "https:", "mailto:")


def blocks(text: str) -> list[str]:
    """The HTML of each paragraph, list, table, … While a text grows, only its last blocks change."""
    made: dict[str, Any] = {}
    tokens = _markdown.parse(text, made)
    html: list[str] = []
    begun = 0
    for i, token in enumerate(tokens, start=1):
        if token.level == 0 and token.nesting <= 0:
            html.append(_markdown.renderer.render(tokens[begun:i], _markdown.options, made))
            begun = i
    return html


def _made() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"]).disable("image")
    markdown.validateLink = _is_safe  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _link_open)
    return markdown


def _is_safe(url: str) -> bool:
    return url.strip().lower().startswith(SAFE_SCHEMES)


def _link_open(renderer: RendererProtocol, tokens: list[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    tokens[at].attrSet("target", "_blank")
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    rendered: Any = renderer.renderToken(tokens, at, options, env)  # type: ignore[attr-defined]
    return str(rendered)


_markdown = _made()

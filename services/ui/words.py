"""Pieces of HTML that several panels share. Everything that came from elsewhere is escaped here."""

from __future__ import annotations

from datetime import datetime
from html import escape

from client.text import SYMBOLS, duration

# Colours are a second sign only: each status also has a symbol and a word.
TONES = {
    "STARTING": "active",
    "RUNNING": "active",
    "SUCCEEDED": "good",
    "FAILED": "bad",
    "STOPPING": "warn",
    "BACKOFF": "warn",
    "PAUSED": "warn",
}


def header(right: str = "") -> str:
    return (
        '<div class="nc-head"><h1>nanochat</h1><span class="nc-tagline">POST a recipe, get a ChatGPT you trained yourself</span>'
        f'<span class="nc-workers">{right}</span></div>'
    )


def tone(status: str) -> str:
    return TONES.get(status, "")


def chip(status: str) -> str:
    word = status.replace("_", " ").capitalize()
    return (
        f'<span class="nc-chip {tone(status)}" data-status="{escape(status)}">{SYMBOLS.get(status, "?")} {escape(word)}</span>'
    )


def bar(fraction: float, status: str) -> str:
    percent = round(100 * fraction, 1)
    return (
        f'<div class="nc-bar {tone(status)}" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{percent}%"></i></div>'
    )


def ago(moment: datetime | None) -> str:
    """Age, with the exact time in UTC on hover."""
    if moment is None:
        return ""
    return f'<span title="{moment:%Y-%m-%d %H:%M:%S} UTC">{duration(moment, None)} ago</span>'


def alert(text: str, *, bad: bool = False) -> str:
    return f'<div class="nc-alert{" bad" if bad else ""}" role="alert">{escape(text)}</div>' if text else ""

"""Renders the files in `templates/`. Jinja escapes every value, so text from users and models never becomes markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """The template `<template>.html` with these values. Raises jinja2.UndefinedError when one is missing."""
    return _templates.get_template(f"{template}.html").render(values)


def header(right: str = "", problem: str = "") -> str:
    """The title line of a page, with `right` at its end and an alert below it when there is a problem."""
    return render("header", right=right, problem=problem)


def alert(text: str, *, bad: bool = False) -> str:
    return render("alert", text=text, bad=bad)

"""Gradio's components in the colours and sizes of the other pages, whose variables (static/css) also know the dark theme."""

from __future__ import annotations

import inspect
from typing import Any

import gradio as gr

SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
COLOURS = {
    "body_background_fill": "paper",
    "background_fill_primary": "surface",
    "background_fill_secondary": "sunken",
    "block_background_fill": "surface",
    "block_border_color": "line",
    "block_info_text_color": "ink-2",
    "block_label_background_fill": "surface",
    "block_label_text_color": "ink",
    "block_title_text_color": "ink",
    "body_text_color": "ink",
    "body_text_color_subdued": "ink-2",
    "border_color_primary": "line-strong",
    "border_color_accent": "accent",
    "color_accent": "accent",
    "color_accent_soft": "accent-soft",
    "input_background_fill": "surface",
    "input_border_color": "line-strong",
    "input_border_color_focus": "accent",
    "input_placeholder_color": "ink-3",
    "checkbox_background_color": "surface",
    "checkbox_background_color_selected": "accent",
    "checkbox_border_color": "line-strong",
    "checkbox_border_color_focus": "accent",
    "checkbox_border_color_selected": "accent",
    "checkbox_label_background_fill": "surface",
    "checkbox_label_text_color": "ink",
    "slider_color": "accent",
    "panel_background_fill": "paper",
}


def theme() -> gr.themes.Base:
    made = gr.themes.Base(font=SANS, font_mono=MONO, radius_size=gr.themes.sizes.radius_sm, text_size=gr.themes.sizes.text_sm)
    values: dict[str, Any] = {name: f"var(--{colour})" for name, colour in COLOURS.items()}
    known = inspect.signature(made.set).parameters
    dark = {f"{name}_dark": value for name, value in values.items() if f"{name}_dark" in known}
    return made.set(**values, **dark, block_shadow="none", block_shadow_dark="none")

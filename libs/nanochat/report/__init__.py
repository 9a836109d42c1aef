"""The report card of a run: one model of its facts (`card`), written as JSON, Markdown and a single HTML page. Imports no torch."""

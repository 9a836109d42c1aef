"""Validation bits per byte against time, of recipes on the same text in the same order."""

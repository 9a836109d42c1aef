"""Constrained decoding: what an answer may look like, and which tokens may come next. Without torch and without the engine."""

from nanochat.grammar.grammar import Grammar, GrammarError
from nanochat.grammar.matcher import Grammars, Matcher, Vocabulary, allowed

__all__ = ["Grammar", "GrammarError", "Grammars", "Matcher", "Vocabulary", "allowed"]

"""Conversations to learn from and problems to be judged on, by the name a recipe gives them. Imports no torch."""

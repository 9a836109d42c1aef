"""Conversations to learn from and problems to be judged on, by the name a recipe gives them."""

from nanochat.tasks.base import Conversation, Message, Part, Task
from nanochat.tasks.mixture import Mixture, mixture
from nanochat.tasks.registry import load, named
from nanochat.tasks.source import TaskSource

__all__ = ["Conversation", "Message", "Mixture", "Part", "Task", "TaskSource", "load", "mixture", "named"]

"""Prompts that fit what a model was taught, as far as its run says: the tasks of its last stage, or text to go on with."""

from __future__ import annotations

from typing import Any

from client.client import Client
from client.errors import ClientError
from client.inference import ServedModel

CONTINUED = frozenset({"base_train"})  # stages whose models know no turns: they continue a text
TO_CONTINUE = ("The capital of France is", "Once upon a time, there was", "The chemical symbol of gold is", "def fibonacci(n):")
# In this order a model that knows several of them gets at most SHOWN.
BY_TASK = {
    "identity": "Who are you?",
    "jsonl": "Who are you?",
    "spelling": "Spell the word banana.",
    "simplespelling": "Spell the word banana.",
    "spellingbee": "How many r are in strawberry?",
    "counting": "How many r are in strawberry?",
    "sums": "What is 37 + 48?",
    "gsm8k": "Tom has 3 boxes with 12 pencils each. He gives 7 pencils away. How many pencils are left?",
    "smoltalk": "Why is the sky blue?",
}
ANY_CHAT = ("Who are you?", "Why is the sky blue?", "What is 37 + 48?")
SHOWN = 4


def is_continued(model: ServedModel) -> bool:
    return model.stage in CONTINUED


def examples(api: Client, model: ServedModel) -> list[str]:
    """At most SHOWN prompts. While the run cannot be read, those that suit any chat model."""
    if is_continued(model):
        return list(TO_CONTINUE)
    found = [prompt for task, prompt in BY_TASK.items() if task in _tasks(api, model)]
    return list(dict.fromkeys(found))[:SHOWN] or list(ANY_CHAT)


def _tasks(api: Client, model: ServedModel) -> set[str]:
    """The tasks that the stage of the model was trained on. SFT of an RL model is the last that taught it to talk."""
    if model.run_id is None:
        return set()
    try:
        config = api.run(model.run_id).config
    except ClientError:
        return set()
    sections = ("mid",) if model.stage == "mid_train" else ("mid", "sft")
    rows: list[Any] = [row for section in sections for row in (config.get(section) or {}).get("train") or ()]
    return {str(row.get("task")) for row in rows if isinstance(row, dict)}

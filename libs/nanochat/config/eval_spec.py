"""What a recipe says of the stages that evaluate. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from nanochat.config.model_spec import Positive, Spec
from nanochat.tasks.catalog import TASKS
from nanochat.tasks.use import JudgedTask


class BaseEvalSpec(Spec):
    bpb_tokens: Positive = 20 * 524_288
    core_max_per_task: Positive | None = Field(default=None, description="null: every example")
    device_batch_size: Positive = 32


class ChatEvalSpec(Spec):
    tasks: tuple[JudgedTask, ...] = tuple(task.name for task in TASKS if task.in_chatcore)
    max_problems: Positive | None = None
    max_new_tokens: Positive = 512
    temperature: float = Field(default=0.0, ge=0)
    top_k: int = Field(default=50, ge=0)
    num_samples: Positive = 1
    batch_size: Positive = 8
    generated_size: Positive = Field(default=256, description="problems of a generated task")

"""The recipe's settings for the stages that evaluate. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanochat.config.model_spec import Spec
from nanochat.contract.bounds import DeviceRows, GeneratedRows, Length, Repeats, Rows, Temperature, Tokens, TopK
from nanochat.tasks.catalog import JUDGED, TASKS
from nanochat.tasks.use import JudgedTask, OwnTask


class TokEvalSpec(Spec):
    """Comparison of the tokenizer with those of GPT-2 and GPT-4."""

    enabled: bool = Field(default=True, description="Whether the run has this stage.")


class BaseEvalSpec(Spec):
    """Evaluation of the base model: bits per byte, CORE and samples."""

    enabled: bool = Field(default=True, description="Whether the run has this stage.")
    bpb_tokens: Tokens = Field(
        default=20 * 524_288, description="Tokens of each split, train and validation, on which bits per byte are measured."
    )
    core_max_per_task: Rows | None = Field(
        default=None, description="Maximum number of examples of each CORE task; null means all of them."
    )
    core_baselines: Literal["original", "corrected"] = Field(
        default="original",
        description="Accuracies of guessing on the CORE tasks: DCLM's original ones, with which published figures compare, or those that "
        "it corrected later for three of the tasks.",
    )
    allow_incomplete: bool = Field(
        default=False,
        description="Start although CORE tasks are missing or damaged in the bundle. They are left out, and there is no CORE.",
    )
    device_batch_size: DeviceRows = Field(default=32, description="Rows that one process evaluates at a time.")


class ChatEvalSpec(Spec):
    """Evaluation of a chat model on tasks, after midtraining, SFT and reinforcement learning."""

    enabled: bool = Field(
        default=True, description="Whether the run has these stages, one after each of the three that it has."
    )
    tasks: tuple[JudgedTask, ...] = Field(
        default=tuple(task.name for task in TASKS if task.in_chatcore),
        min_length=1,
        max_length=len(JUDGED),
        description="Tasks to evaluate. ChatCORE is computed when all six of the default are among them.",
    )
    own: tuple[OwnTask, ...] = Field(
        default=(),
        min_length=0,
        max_length=100,
        description="Your own evaluations: files of questions with answers, or tasks of installed packages.",
    )
    max_problems: Rows | None = Field(
        default=None, description="Maximum number of problems of each task; null means all of them."
    )
    max_new_tokens: Length = Field(default=512, description="Maximum number of tokens of one answer.")
    temperature: Temperature = Field(
        default=0.0, description="Sampling temperature of answers; 0 always takes the likeliest token."
    )
    top_k: TopK = Field(default=50, description="Answers are sampled from this many likeliest tokens; 0 means from all.")
    num_samples: Repeats = Field(
        default=1, description="Answers to each generative problem. The problem counts as solved when any of them is right."
    )
    batch_size: DeviceRows = Field(default=8, description="Multiple-choice problems that one process evaluates at a time.")
    allow_incomplete: bool = Field(
        default=False,
        description="Start although data of tasks are missing or damaged. They are left out, and there is no ChatCORE.",
    )
    generated_size: GeneratedRows = Field(default=256, description="Problems of each generated task, such as counting.")
    trust_generated_code: bool = Field(
        default=False,
        description="Run programs that the model wrote (HumanEval) even on a machine that cannot confine them.",
    )

"""What a recipe takes on given hardware: steps, tokens, FLOPs, batches that fit, hours and dollars. Imports no torch.

The stages compute their number of steps, device batch and accumulation with the same functions, so a run does what its plan
said.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from nanochat.config.recipe import BaseSpec, Recipe, RecipeError, RlSpec, SftSpec, TaskUse
from nanochat.config.shape import GPTConfig, flops_per_token, num_params, scaling_params
from nanochat.planning import gpus, graph, memory
from nanochat.planning.batches import BatchSplit, example_batch, questions_per_rank, token_batch
from nanochat.planning.gpus import Hardware
from nanochat.planning.measured import Measured
from nanochat.tasks.catalog import BY_NAME

TOKENS_PER_ROW = 499  # measured on the speedrun's midtraining mixture: 809 steps of 524,288 tokens for 849,648 rows

ESTIMATE = "estimate"
LONG_H = 24  # hours on a CPU, beyond which a plan warns


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class StagePlan(Frozen):
    """What one training stage takes. A figure is null if it cannot be known before the data is there or on this hardware."""

    stage: str = Field(description="Name of the stage.")
    steps: int | None = Field(description="Optimizer steps.")
    tokens: int | None = Field(description="Tokens trained on.")
    flops: float | None = Field(description="Training FLOPs.")
    device_batch_size: int = Field(
        description="Rows that one process takes at a time: as in the recipe, or fewer so that they fit."
    )
    accumulation: int = Field(description="How many times each process does so for one optimizer step.")
    peak_gib: float | None = Field(
        default=None, description="Predicted peak memory of each GPU in GiB; null if its memory is unknown."
    )
    fits: bool | None = Field(
        default=None, description="False if even one row at a time is predicted not to fit; null if the memory is unknown."
    )
    warmdown_steps: int | None = Field(
        default=None, description="Last steps, in which the learning rate falls; only in pretraining."
    )
    eval_steps: int | None = Field(default=None, description="Validation batches that each process evaluates each time.")
    estimated: bool = Field(default=False, description="Whether the stage's length is an estimate.")
    tok_per_s: float | None = Field(default=None, description="Predicted tokens per second of all processes together.")
    hours: float | None = Field(default=None, description="Predicted hours of training.")
    usd: float | None = Field(default=None, description="Predicted cost of training in US dollars.")
    source: str = Field(
        default=ESTIMATE, description="Where the speed, the hours and the cost are from: `estimate`, or which finished runs."
    )


class OtherStagePlan(Frozen):
    """What a stage that trains nothing takes, as finished runs say."""

    stage: str = Field(description="Name of the stage.")
    hours: float = Field(description="Predicted hours from claim to end.")
    usd: float | None = Field(description="Predicted cost in US dollars; null if the price of a GPU is unknown.")
    source: str = Field(description="Which finished runs the figures are from.")


class Plan(Frozen):
    """A recipe's figures on given hardware.

    Hours and dollars of a training stage cover its steps alone; they are null if the GPU is unknown and nothing was measured.
    """

    recipe: str = Field(description="Name of the recipe.")
    world_size: int = Field(description="Processes of a training stage, one GPU each.")
    gpu: str | None = Field(description="Name of the GPU in the table of known GPUs; null if it is not there.")
    gpu_memory_gib: float | None = Field(description="Memory of one GPU in GiB.")
    peak_tflops: float | None = Field(description="Peak of one GPU in dense bf16 TFLOPS.")
    mfu: float | None = Field(description="Fraction of that peak that training is assumed to reach.")
    usd_per_hour: float | None = Field(description="Price of one GPU in US dollars per hour.")
    params: int = Field(description="Parameters of the model.")
    flops_per_token: int = Field(description="Training FLOPs per token, forward and backward.")
    total_flops: float = Field(description="Training FLOPs of all stages whose FLOPs are known.")
    hours: float | None = Field(description="Predicted hours of all stages whose hours are known.")
    usd: float | None = Field(
        description="Predicted cost in US dollars of all stages whose cost is known; null if the price is unknown."
    )
    stages: list[StagePlan] = Field(description="The training stages in order.")
    others: list[OtherStagePlan] = Field(
        default=[], description="The other stages of which enough runs have finished here, in order."
    )
    measured: list[Measured] = Field(
        default=[],
        description="What finished runs say. A submission that names the plan uses the same.",
    )


class PlannedStage(Frozen):
    """One stage of the run's graph."""

    name: str = Field(description="Name of the stage, such as `chat_eval_sft`.")
    kind: str = Field(description="What the stage runs, such as `chat_eval`.")
    queue: str = Field(description="Kind of worker that it needs: `cpu` or `gpu`.")
    needs: list[str] = Field(description="Outputs that it waits for, each as producer.output.")


class RunPlan(Frozen):
    """What a run would do and cost. Nothing has been started or written."""

    hash: str = Field(
        default="", description="SHA-256 of the rest. A submission that names it is refused if the plan has changed."
    )
    recipe: str = Field(description="Name of the recipe.")
    config: Recipe = Field(description="The whole recipe with its defaults filled in.")
    stages: list[PlannedStage] = Field(description="All stages of the run; producers precede consumers.")
    figures: Plan = Field(description="Parameters, steps, tokens, FLOPs, batches, memory, hours and dollars on the hardware.")
    warnings: list[str] = Field(description="What to know before the run starts, in sentences for people.")


def plan(
    recipe: Recipe,
    world_size: int = 1,
    gpu: str | None = None,
    gpu_memory_gib: float | None = None,
    *,
    peak_tflops: float | None = None,
    usd_per_hour: float | None = None,
    measured: Sequence[Measured] = (),
) -> Plan:
    """The whole run on `world_size` processes, each with one `gpu` (a name as in `gpus.GPUS`, or the driver's).

    Its memory, bf16 peak and price are the table's unless given. `measured` overrides the table's speed. Each stage takes the
    largest device batch that fits, the recipe's at most. Raises RecipeError, naming the field and the nearest sizes that fit, when
    a batch does not divide.
    """
    config = GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size)
    on = gpus.hardware(world_size, gpu, memory_gib=gpu_memory_gib, peak_tflops=peak_tflops, usd_per_hour=usd_per_hour)
    known = {m.stage: m for m in measured}
    stages: list[StagePlan] = []
    others: list[OtherStagePlan] = []
    problems: list[tuple[str, str]] = []
    for stage in graph.stages(recipe):
        found = known.get(stage.name)
        if stage.trains:
            try:
                planned = PLANNERS[stage.trains](stage.name, recipe, config, on)
            except RecipeError as err:
                problems += err.problems
                continue
            stages.append(planned if found is None else _as_measured(planned, found, on, config))
        elif found is not None and found.hours is not None:
            usd = _usd(found.hours, on) if stage.queue == "gpu" else 0.0
            others.append(OtherStagePlan(stage=stage.name, hours=found.hours, usd=usd, source=found.source))
    if problems:
        raise RecipeError(problems)
    hours = [h for h in (*(s.hours for s in stages), *(s.hours for s in others)) if h is not None]
    prices = [usd for usd in (*(s.usd for s in stages), *(s.usd for s in others)) if usd is not None]
    return Plan(
        recipe=recipe.name,
        world_size=world_size,
        gpu=on.gpu,
        gpu_memory_gib=on.memory_gib,
        peak_tflops=on.peak_tflops,
        mfu=on.mfu,
        usd_per_hour=on.usd_per_hour,
        params=num_params(config),
        flops_per_token=flops_per_token(config),
        total_flops=sum(s.flops for s in stages if s.flops is not None),
        hours=sum(hours) if hours else None,
        usd=sum(prices) if prices and on.usd_per_hour is not None else None,
        stages=stages,
        others=others,
        measured=list(measured),
    )


def run_plan(recipe: Recipe, figures: Plan, gpu: str | None = None, warnings: Sequence[str] = ()) -> RunPlan:
    """Add every stage of the run and the warnings to `figures`. `gpu` is the name that the caller gave."""
    stages = [
        PlannedStage(name=stage.name, kind=stage.kind, queue=stage.queue, needs=sorted(stage.inputs.values()))
        for stage in graph.stages(recipe)
    ]
    warnings = [*warnings, *_warnings(recipe, figures, gpu)]
    made = RunPlan(recipe=recipe.name, config=recipe, stages=stages, figures=figures, warnings=warnings)
    text = json.dumps(made.model_dump(mode="json", exclude={"hash"}), sort_keys=True, separators=(",", ":"))
    return made.model_copy(update={"hash": hashlib.sha256(text.encode()).hexdigest()})


# -- what the stages use --


def base_steps(spec: BaseSpec, config: GPTConfig) -> int:
    """Optimizer steps of pretraining: from `num_iterations`, else `target_flops`, else `param_data_ratio` tokens per parameter."""
    if spec.num_iterations is not None:
        return spec.num_iterations
    if spec.target_flops is not None:
        return max(1, round(spec.target_flops / (flops_per_token(config) * spec.total_batch_size)))
    params = num_params(config) if spec.horizon_params == "all" else scaling_params(config)
    return max(1, math.floor(spec.param_data_ratio * params / spec.total_batch_size))


def eval_steps(eval_tokens: int, device_batch_size: int, seq_len: int, world_size: int) -> int:
    """Number of validation batches per rank, at least one."""
    return max(1, eval_tokens // (device_batch_size * seq_len * world_size))


def example_steps(spec: SftSpec | RlSpec, rows: int) -> int:
    """Optimizer steps over `rows` conversations or questions. An incomplete last batch is dropped."""
    return spec.num_iterations or max(1, spec.num_epochs * rows // spec.examples_per_step)


# -- stages --


def _base(stage: str, recipe: Recipe, config: GPTConfig, on: Hardware) -> StagePlan:
    spec, steps = recipe.base, base_steps(recipe.base, config)
    batch = token_batch("base", spec, config, on.world_size, on.memory_gib)
    evals = eval_steps(spec.eval_tokens, batch.size, config.sequence_len, on.world_size)
    planned = _trained(stage, batch, steps, spec.total_batch_size, evals, config, on)
    return planned.model_copy(update={"warmdown_steps": round(spec.warmdown_ratio * steps)})


def _mid(stage: str, recipe: Recipe, config: GPTConfig, on: Hardware) -> StagePlan:
    spec, steps = recipe.mid, recipe.mid.num_iterations
    batch = token_batch("mid", spec, config, on.world_size, on.memory_gib)
    evals = eval_steps(spec.eval_tokens, batch.size, config.sequence_len, on.world_size)
    conversations = _conversations(spec.train)
    if steps is None and conversations is not None:
        steps = max(1, round(conversations * min(TOKENS_PER_ROW, config.sequence_len) / spec.total_batch_size))
    planned = _trained(stage, batch, steps, spec.total_batch_size, evals, config, on)
    return planned.model_copy(update={"estimated": spec.num_iterations is None})


def _sft(stage: str, recipe: Recipe, config: GPTConfig, on: Hardware) -> StagePlan:
    spec, conversations = recipe.sft, _conversations(recipe.sft.train)
    batch = example_batch("sft", spec, config, on.world_size, on.memory_gib)
    each = min(TOKENS_PER_ROW, config.sequence_len)
    if spec.packing == "best_fit":  # full rows, as many as the conversations take
        each, conversations = config.sequence_len, conversations and math.ceil(conversations * each / config.sequence_len)
    steps = spec.num_iterations if conversations is None else example_steps(spec, conversations)
    step_tokens = spec.examples_per_step * each
    planned = _trained(stage, batch, steps, step_tokens, spec.eval_batches, config, on)
    return planned.model_copy(update={"estimated": True})


def _trained(
    stage: str, batch: BatchSplit, steps: int | None, step_tokens: int, evals: int, config: GPTConfig, on: Hardware
) -> StagePlan:
    """A stage of `steps` optimizer steps of `step_tokens` tokens each, with what follows from the hardware."""
    tokens = steps * step_tokens if steps is not None else None
    planned = StagePlan(
        stage=stage,
        steps=steps,
        tokens=tokens,
        flops=float(tokens * flops_per_token(config)) if tokens is not None else None,
        device_batch_size=batch.size,
        accumulation=batch.accumulation,
        eval_steps=evals,
    )
    return _priced(planned, on, config)


def _rl(stage: str, recipe: Recipe, config: GPTConfig, on: Hardware) -> StagePlan:
    """Only the number of steps is known in advance: the model decides how long its completions are."""
    spec = recipe.rl
    rows = BY_NAME[spec.task].rows("train", spec.size)
    steps = spec.num_iterations if rows is None else example_steps(spec, rows)
    return StagePlan(
        stage=stage,
        steps=steps,
        tokens=None,
        flops=None,
        device_batch_size=spec.device_batch_size,
        accumulation=questions_per_rank(spec.examples_per_step, on.world_size),
        estimated=True,
    )


# The planner of each section that trains, by `StageDef.trains`.
PLANNERS: dict[str, Callable[[str, Recipe, GPTConfig, Hardware], StagePlan]] = {
    "base": _base,
    "mid": _mid,
    "sft": _sft,
    "rl": _rl,
}


def _priced(stage: StagePlan, on: Hardware, config: GPTConfig) -> StagePlan:
    """The stage with what follows from the hardware: memory, speed, hours, dollars."""
    found: dict[str, float | bool | None] = {}
    if on.memory_gib is not None:
        found["peak_gib"] = memory.peak_gib(config, stage.device_batch_size, on.world_size)
        found["fits"] = memory.fits(config, stage.device_batch_size, on.world_size, on.memory_gib)
    if on.flops is not None:
        found["tok_per_s"] = on.flops / flops_per_token(config)
        found["hours"] = hours = stage.flops / on.flops / 3600 if stage.flops is not None else None
        if hours is not None:
            found["usd"] = _usd(hours, on)
    return stage.model_copy(update=found)


def _as_measured(stage: StagePlan, found: Measured, on: Hardware, config: GPTConfig) -> StagePlan:
    """The stage with the speed, or the hours, of finished runs."""
    hours, speed = found.hours, stage.tok_per_s
    if found.flops_per_s is not None:
        speed = found.flops_per_s / flops_per_token(config)
        hours = None if stage.flops is None else stage.flops / found.flops_per_s / 3600
    usd = None if hours is None else _usd(hours, on)
    return stage.model_copy(update={"tok_per_s": speed, "hours": hours, "usd": usd, "source": found.source})


def _usd(hours: float, on: Hardware) -> float | None:
    return None if on.usd_per_hour is None else hours * on.world_size * on.usd_per_hour


def _warnings(recipe: Recipe, planned: Plan, gpu: str | None) -> Iterator[str]:
    have = planned.gpu_memory_gib
    if gpu and planned.gpu is None and None in (have, planned.peak_tflops):
        known = ", ".join(row.name for row in gpus.GPUS)
        yield f"{gpu} is not in the table of GPUs ({known}): give its memory, its bf16 peak and its price"
    hours = planned.hours or 0.0
    if planned.gpu == gpus.CPU and hours > LONG_H:
        yield (
            f"no GPU is connected: training on one CPU process would take about {hours:,.0f} hours "
            f"({hours / 24:,.0f} days). Connect a GPU worker, or take the recipe tiny or a smaller model.depth"
        )
    sections = {stage.name: stage.trains for stage in graph.stages(recipe) if stage.trains}
    for stage in planned.stages:
        wanted = getattr(recipe, sections[stage.stage]).device_batch_size
        if stage.fits is False:
            yield (
                f"{stage.stage} is predicted to need {stage.peak_gib:.1f} GiB for one row at a time, of {have:.1f} GiB: "
                "use GPUs with more memory, a smaller model.depth or a shorter model.seq_len"
            )
        elif stage.device_batch_size < wanted:
            yield f"{stage.stage} takes {stage.device_batch_size} rows at a time, not the recipe's {wanted}, to fit {have:.1f} GiB"


def _conversations(uses: Sequence[TaskUse]) -> int | None:
    """Conversations in a mixture; None when it names a file, whose length is not known before it is read."""
    total = 0
    for use in uses:
        rows = BY_NAME[use.task].rows(use.split, use.size)
        if rows is None:
            return None
        total += min(rows, use.limit or rows) * use.repeat
    return total

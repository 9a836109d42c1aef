"""sft: supervised finetuning, with one or several whole conversations per row. Only the assistant's tokens are targets."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.config.recipe import SftSpec, TaskUse
from nanochat.contract.contract import StageContext, StageError
from nanochat.data.best_fit import BestFitLoader, padding_pct
from nanochat.data.lengths import check_lengths
from nanochat.data.loader import SftLoader
from nanochat.data.position import State
from nanochat.distributed import Ranks
from nanochat.eval import chat
from nanochat.model import GPT
from nanochat.optim import schedule
from nanochat.planning import plan
from nanochat.planning.batches import BatchSplit, example_batch
from nanochat.tasks import registry
from nanochat.tasks.base import Conversation
from nanochat.tasks.mixture import load_mixture
from nanochat.tasks.source import TaskSource
from nanochat.tokenizer import Tokenizer
from nanochat.train import fit, validate
from nanochat.train.loop import Callback, Trainer, TrainingJob
from nanochat.train.session import build_loader, build_model, config_of, open_resume, section, session, tokenizer_of
from nanochat.train.work import MicroBatches, Values

MOMENTUM = 0.95
JUDGED = ("mmlu", "arc_easy")  # multiple choice is quick to judge: it needs one forward pass per problem


def run(ctx: StageContext) -> None:
    """Publish `model` and `results`. Raises StageError, also on a stop request."""
    spec = section(ctx, "sft", SftSpec)
    with session(ctx, deterministic=spec.deterministic, lengths_vary=spec.packing != "best_fit") as ranks:
        tokenizer, digest = tokenizer_of(ctx)
        source = TaskSource.load(ctx.input("tasks"))
        mixture = load_mixture(spec.train, source)
        packed = spec.packing == "best_fit"
        steps = plan.example_steps(spec, len(mixture)) if not packed else spec.num_iterations
        resume = open_resume(ctx)
        config = config_of(ctx)
        lengths = check_lengths(ctx, mixture, tokenizer, config.sequence_len + 1)

        def trainer(batch: BatchSplit) -> Trainer:
            model = build_model(ctx, ranks, tokenizer, digest, fresh=None)
            # The same rows, however many of them fit at a time.
            eval_steps = spec.eval_batches * spec.device_batch_size // batch.size

            def loader(rows: Sequence[Conversation], state: State | None = None) -> SftLoader | BestFitLoader:
                where = {"rank": ranks.rank, "world_size": ranks.world_size}
                size = {"batch_size": batch.size, "seq_len": config.sequence_len}
                if packed:
                    return BestFitLoader(rows, tokenizer, answers_only=True, state=state, **size, **where)
                return SftLoader(rows, tokenizer, multiple=ranks.row_multiple, state=state, **size, **where)

            train = build_loader(lambda state: loader(mixture, state), resume, ranks)
            job = TrainingJob(
                spec=spec,
                model=model,
                work=lambda forward: MicroBatches(
                    forward,
                    train,
                    ranks,
                    batch.accumulation,
                    by_target=True,
                    positions=0 if spec.compile else fit.positions(ranks, config, batch.size),
                    passes=lambda: train.epoch_progress() / spec.num_epochs,
                    describe=padding_pct,
                ),
                accumulation=batch.accumulation,
                precision=spec.precision,
                lrm=lambda step, progress: schedule.linear(step, steps) if steps else max(0.0, 1 - progress),
                momentum=lambda _: MOMENTUM,
                val_name="val_loss",
                validate=validate.mean_loss(model, loader(load_mixture(spec.val, source)), eval_steps, ranks),
                tokenizer_sha256=digest,
                steps=steps,
                lr_scale=spec.init_lr_frac,
                compile=bool(spec.compile),  # off by default: batches differ in length, and compiling each takes too long
                callbacks=[_judge(ctx, spec, model, tokenizer, source, ranks)] if spec.metrics_every > 0 else [],
            )
            return Trainer(ctx, ranks, job, resume)

        batch = fit.choose(ranks, resume, lambda gib: example_batch("sft", spec, config, ranks.world_size, gib))
        results = fit.train(ctx, ranks, "sft", spec, batch, trainer)
        if ranks.is_main:
            ctx.publish_results({**results, "rows": len(mixture), **lengths})


def _judge(ctx: StageContext, spec: SftSpec, model: GPT, tokenizer: Tokenizer, source: TaskSource, ranks: Ranks) -> Callback:
    judged = {}
    for name in JUDGED:
        try:
            judged[name] = registry.load(TaskUse.model_validate({"task": name, "split": "test"}), source)
        except StageError as err:  # the figures have a hole, and training goes on
            _warn(ctx, name, err)

    def run_tasks(step: int) -> Values:
        evaluator, values = chat.Evaluator(model, tokenizer, ranks), {}
        for name, found in evaluator.evaluate(judged, spec.metrics_max_problems):
            if isinstance(found, StageError):
                _warn(ctx, name, found)
            else:
                values[name] = found.accuracy
        ctx.events.emit("eval", name="chat", step=step, values=values)
        return values

    return Callback(spec.metrics_every, run_tasks)


def _warn(ctx: StageContext, name: str, err: StageError) -> None:
    ctx.events.emit("warning", code="evaluation_failed", message=f"{name} was not evaluated: {err}")

"""Supervised finetuning: one conversation a row, in which only the assistant's words are learnt."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat import plan, tasks
from nanochat.contract import StageContext
from nanochat.data.loader import SftLoader
from nanochat.data.position import State
from nanochat.distributed import Ranks
from nanochat.eval import chat
from nanochat.model import GPT
from nanochat.optim import schedule
from nanochat.recipe import SftSpec, TaskUse
from nanochat.tokenizer import Tokenizer
from nanochat.train import validate
from nanochat.train.loop import Job, Trainer, Values, Visit
from nanochat.train.session import build_loader, build_model, open_resume, section, session, tokenizer_of

MOMENTUM = 0.95
JUDGED = ("mmlu", "arc_easy")  # multiple choice is quick to judge: one forward pass a problem


def run(ctx: StageContext) -> None:
    spec = section(ctx, "sft", SftSpec)
    with session(ctx, deterministic=spec.deterministic) as here:
        tokenizer, digest = tokenizer_of(ctx)
        accumulation = plan.example_accumulation("sft", spec.examples_per_step, spec.device_batch_size, here.world_size)
        source = tasks.TaskSource.load(ctx.input("tasks"))
        resume = open_resume(ctx)
        model = build_model(ctx, here, tokenizer, digest, fresh=None)

        def loader(uses: Sequence[TaskUse], state: State | None = None) -> SftLoader:
            where = {"rank": here.rank, "world_size": here.world_size}
            size = {"batch_size": spec.device_batch_size, "seq_len": model.config.sequence_len}
            return SftLoader(tasks.mixture(uses, source), tokenizer, state=state, **size, **where)

        train = build_loader(lambda state: loader(spec.train, state), resume, here)
        steps = plan.sft_steps(spec, len(train))
        job = Job(
            spec=spec,
            model=model,
            loader=train,
            accumulation=accumulation,
            lrm=lambda step, _: schedule.linear(step, steps),
            momentum=lambda _: MOMENTUM,
            val_name="val_loss",
            validate=validate.mean_loss(model, loader(spec.val), spec.eval_batches, here),
            tokenizer_sha256=digest,
            steps=steps,
            lr_scale=spec.init_lr_frac,
            compile=bool(spec.compile),  # rows differ in length: compiling each would take longer than it saves
            visits=[_judge(ctx, spec, model, tokenizer, source, here)] if spec.metrics_every > 0 else [],
        )
        results = Trainer(ctx, here, job, resume).run()
        if here.is_main:
            ctx.publish_results({**results, "rows": len(train)})


def _judge(ctx: StageContext, spec: SftSpec, model: GPT, tokenizer: Tokenizer, source: tasks.TaskSource, here: Ranks) -> Visit:
    judged = {name: tasks.load(TaskUse.model_validate({"task": name, "split": "test"}), source) for name in JUDGED}

    def visit(step: int) -> Values:
        values = {
            name: chat.evaluate(model, tokenizer, task, here, max_problems=spec.metrics_max_problems).accuracy
            for name, task in judged.items()
        }
        ctx.events.emit("eval", name="chat", step=step, values=values)
        return values

    return Visit(spec.metrics_every, visit)

"""Midtraining: the base model meets conversations, as one packed stream in which every token is learnt."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat import plan, tasks
from nanochat.contract import StageContext
from nanochat.data.loader import ConversationLoader
from nanochat.data.position import State
from nanochat.optim import schedule
from nanochat.recipe import MidSpec, TaskUse
from nanochat.train import validate
from nanochat.train.loop import Job, Trainer
from nanochat.train.session import build_loader, build_model, open_resume, section, session, tokenizer_of


def run(ctx: StageContext) -> None:
    """Ends after `num_iterations` optimizer steps, or when any rank has been through its conversations once."""
    spec = section(ctx, "mid", MidSpec)
    with session(ctx, deterministic=spec.deterministic) as here:
        tokenizer, digest = tokenizer_of(ctx)
        source = tasks.TaskSource.load(ctx.input("tasks"))
        resume = open_resume(ctx)
        model = build_model(ctx, here, tokenizer, digest, fresh=None)
        batch, length = spec.device_batch_size, model.config.sequence_len
        accumulation = plan.accumulation("mid", spec.total_batch_size, batch, length, here.world_size)

        def loader(uses: Sequence[TaskUse], state: State | None = None) -> ConversationLoader:
            mixture = tasks.mixture(uses, source)
            where = {"rank": here.rank, "world_size": here.world_size}
            return ConversationLoader(mixture, tokenizer, batch_size=batch, seq_len=length, state=state, **where)

        train = build_loader(lambda state: loader(spec.train, state), resume, here)
        job = Job(
            spec=spec,
            model=model,
            loader=train,
            accumulation=accumulation,
            lrm=lambda _, progress: schedule.warmdown(progress, spec.warmdown_ratio),
            momentum=schedule.muon_momentum,
            val_name="val_bpb",
            validate=validate.bits(
                model, tokenizer, loader(spec.val), plan.eval_steps(spec.eval_tokens, batch, length, here.world_size), here
            ),
            tokenizer_sha256=digest,
            steps=spec.num_iterations,
            passes=train.epoch_progress,
            lr_scale=spec.init_lr_frac,
            compile=spec.compile if spec.compile is not None else here.device.type == "cuda",
        )
        results = Trainer(ctx, here, job, resume).run()
        if here.is_main:
            ctx.publish_results({**results, "rows": len(train)})

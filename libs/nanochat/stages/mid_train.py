"""mid_train: train the base model on conversations, packed into rows in which every token is a target."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.config.recipe import MidSpec
from nanochat.contract.contract import StageContext
from nanochat.data.best_fit import BestFitLoader, padding_pct
from nanochat.data.lengths import check_lengths
from nanochat.data.loader import ConversationLoader
from nanochat.data.position import State
from nanochat.optim import schedule
from nanochat.planning import plan
from nanochat.planning.batches import BatchSplit, token_batch
from nanochat.tasks.base import Conversation
from nanochat.tasks.mixture import load_mixture
from nanochat.tasks.source import TaskSource
from nanochat.train import fit, validate
from nanochat.train.loop import Trainer, TrainingJob
from nanochat.train.session import build_loader, build_model, config_of, open_resume, section, session, tokenizer_of
from nanochat.train.work import MicroBatches


def run(ctx: StageContext) -> None:
    """Publish `model` and `results`. Raises StageError, also on a stop request.

    Training ends after `num_iterations` optimizer steps or, without that setting, when a rank has used all its conversations.
    """
    spec = section(ctx, "mid", MidSpec)
    with session(ctx, deterministic=spec.deterministic) as ranks:
        tokenizer, digest = tokenizer_of(ctx)
        source = TaskSource.load(ctx.input("tasks"))
        mixture = load_mixture(spec.train, source)
        resume = open_resume(ctx)
        config, packed = config_of(ctx), spec.packing == "best_fit"
        lengths = check_lengths(ctx, mixture, tokenizer, config.sequence_len)

        def trainer(batch: BatchSplit) -> Trainer:
            model = build_model(ctx, ranks, tokenizer, digest, fresh=None)
            eval_steps = plan.eval_steps(spec.eval_tokens, batch.size, config.sequence_len, ranks.world_size)

            def loader(rows: Sequence[Conversation], state: State | None = None) -> ConversationLoader | BestFitLoader:
                where = {"rank": ranks.rank, "world_size": ranks.world_size}
                size = {"batch_size": batch.size, "seq_len": config.sequence_len}
                if packed:
                    return BestFitLoader(rows, tokenizer, answers_only=False, state=state, **size, **where)
                return ConversationLoader(rows, tokenizer, state=state, **size, **where)

            train = build_loader(lambda state: loader(mixture, state), resume, ranks)
            job = TrainingJob(
                spec=spec,
                model=model,
                work=lambda forward: MicroBatches(
                    forward,
                    train,
                    ranks,
                    batch.accumulation,
                    by_target=packed,  # micro-batches differ in their padding
                    passes=train.epoch_progress,
                    describe=padding_pct,
                ),
                accumulation=batch.accumulation,
                precision=spec.precision,
                lrm=lambda _, progress: schedule.warmdown(progress, spec.warmdown_ratio),
                momentum=schedule.muon_momentum,
                val_name="val_bpb",
                validate=validate.bits(model, tokenizer, loader(load_mixture(spec.val, source)), eval_steps, ranks),
                tokenizer_sha256=digest,
                steps=spec.num_iterations,
                lr_scale=spec.init_lr_frac,
                compile=spec.compile if spec.compile is not None else ranks.device.type == "cuda",
            )
            return Trainer(ctx, ranks, job, resume)

        batch = fit.choose(ranks, resume, lambda gib: token_batch("mid", spec, config, ranks.world_size, gib))
        results = fit.train(ctx, ranks, "mid", spec, batch, trainer)
        if ranks.is_main:
            ctx.publish_results({**results, "rows": len(mixture), **lengths})

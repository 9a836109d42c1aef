"""rl: reinforcement learning on one task whose answers can be judged, starting from the finetuned model."""

from __future__ import annotations

from nanochat.config.recipe import RlSpec
from nanochat.contract.contract import StageContext, StageError
from nanochat.rl.trainer import RlTrainer
from nanochat.tasks import registry
from nanochat.tasks.source import TaskSource
from nanochat.train.session import build_model, open_resume, section, session, tokenizer_of


def run(ctx: StageContext) -> None:
    """Publish `model` and `results`. Raises StageError, also on a stop request."""
    spec = section(ctx, "rl", RlSpec)
    with session(ctx, deterministic=spec.deterministic) as ranks:
        if spec.examples_per_step % ranks.world_size:
            raise StageError(
                f"rl.examples_per_step {spec.examples_per_step} is not a multiple of the {ranks.world_size} processes",
                code="indivisible_batch",
                hint="change rl.examples_per_step or the number of processes",
            )
        tokenizer, digest = tokenizer_of(ctx)
        source = TaskSource.load(ctx.input("tasks"))
        resume = open_resume(ctx)
        trainer = RlTrainer(
            ctx,
            ranks,
            spec,
            build_model(ctx, ranks, tokenizer, digest, fresh=None),
            tokenizer,
            train=registry.named(spec.task, "train", source, size=spec.size, limit=spec.size),
            test=registry.named(spec.task, "test", source, size=spec.eval_examples, limit=spec.eval_examples),
            tokenizer_sha256=digest,
            resume=resume,
        )
        results = trainer.run()
        if ranks.is_main:
            ctx.publish_results(results)

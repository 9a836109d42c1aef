"""base_train: pretrain a base model, from fresh weights or a given model, by next-token prediction on the text of the shards."""

from __future__ import annotations

from pathlib import Path

from nanochat.config import scaling
from nanochat.config.recipe import BaseSpec, ModelSpec, Packing
from nanochat.contract.contract import StageContext, StageError
from nanochat.data.bos_aligned import BosAlignedLoader, cropped_pct
from nanochat.data.core_bundle import bundle_root
from nanochat.data.loader import TextLoader
from nanochat.data.position import State
from nanochat.data.shards import ShardIndex
from nanochat.distributed import Ranks
from nanochat.eval import core, samples
from nanochat.model import GPT, GPTConfig
from nanochat.optim import schedule
from nanochat.planning import plan
from nanochat.planning.batches import BatchSplit, token_batch
from nanochat.tokenizer import Tokenizer
from nanochat.train import fit, validate
from nanochat.train.loop import Callback, Trainer, TrainingJob
from nanochat.train.session import build_loader, build_model, open_resume, section, session, tokenizer_of
from nanochat.train.work import MicroBatches, Values

LOADERS: dict[Packing, type[TextLoader | BosAlignedLoader]] = {"stream": TextLoader, "bos_aligned": BosAlignedLoader}


def run(ctx: StageContext) -> None:
    """Publish `model` and `results`. Raises StageError, also on a stop request."""
    spec, shape = section(ctx, "base", BaseSpec), section(ctx, "model", ModelSpec)
    with session(ctx, deterministic=spec.deterministic) as ranks:
        tokenizer, digest = tokenizer_of(ctx)
        config = GPTConfig.of(shape, tokenizer.vocab_size)
        steps = plan.base_steps(spec, config)
        index = ShardIndex.load(ctx.input("shards"))
        resume = open_resume(ctx)
        decay_scale = scaling.decay_scale(spec.total_batch_size, shape, config.vocab_size) if spec.scale_weight_decay else 1.0

        def trainer(batch: BatchSplit) -> Trainer:
            model = build_model(ctx, ranks, tokenizer, digest, config, shape.init)
            eval_steps = plan.eval_steps(spec.eval_tokens, batch.size, config.sequence_len, ranks.world_size)

            def loader(
                files: list[Path], packing: Packing, state: State | None = None, *, shuffle: bool = False
            ) -> TextLoader | BosAlignedLoader:
                where = {"rank": ranks.rank, "world_size": ranks.world_size, "seed": ctx.spec.seed}
                size = {"batch_size": batch.size, "seq_len": config.sequence_len}
                return LOADERS[packing](files, tokenizer, shuffle=shuffle, state=state, **size, **where)

            train = build_loader(lambda state: loader(index.train, spec.packing, state, shuffle=spec.shuffle), resume, ranks)
            job = TrainingJob(
                spec=spec,
                model=model,
                work=lambda forward: MicroBatches(forward, train, ranks, batch.accumulation, describe=cropped_pct),
                accumulation=batch.accumulation,
                precision=spec.precision,
                lrm=lambda step, _: schedule.trapezoid(
                    step,
                    steps,
                    warmup_ratio=spec.warmup_ratio,
                    warmdown_ratio=spec.warmdown_ratio,
                    final_lr_frac=spec.final_lr_frac,
                    warmup_steps=spec.warmup_steps,
                ),
                momentum=lambda step: _momentum(spec, step, steps),
                lr_scale=scaling.lr_scale(spec.total_batch_size) if spec.scale_lr else 1.0,
                decay=lambda step: decay_scale * schedule.weight_decay(step, steps, spec.weight_decay_schedule),
                val_name="val_bpb",
                validate=validate.bits(model, tokenizer, loader(index.val, spec.val_packing), eval_steps, ranks),
                tokenizer_sha256=digest,
                steps=steps,
                from_scratch="model" not in ctx.spec.inputs,
                compile=spec.compile if spec.compile is not None else ranks.device.type == "cuda",
                callbacks=[
                    *([_core(ctx, spec, model, tokenizer, ranks)] if spec.core_every > 0 else []),
                    *([_samples(ctx, spec, model, tokenizer, ranks)] if spec.sample_every > 0 else []),
                ],
            )
            return Trainer(ctx, ranks, job, resume)

        batch = fit.choose(ranks, resume, lambda gib: token_batch("base", spec, config, ranks.world_size, gib))
        results = fit.train(ctx, ranks, "base", spec, batch, trainer)
        if ranks.is_main:
            ctx.publish_results(results)


def _momentum(spec: BaseSpec, step: int, steps: int) -> float:
    now = schedule.muon_momentum(step, peak=spec.momentum, ramp_steps=spec.momentum_ramp_steps)
    if spec.final_momentum is None:
        return now
    return schedule.momentum_falling(now, spec.final_momentum, step, steps, warmdown_ratio=spec.warmdown_ratio)


def _core(ctx: StageContext, spec: BaseSpec, model: GPT, tokenizer: Tokenizer, ranks: Ranks) -> Callback:
    bundle = bundle_root(ctx.input("core"))

    def run_core(step: int) -> Values:
        try:
            result = core.evaluate(model, tokenizer, bundle, ranks, max_per_task=spec.core_max_per_task)
        except StageError as err:  # the bundle as a whole; the figures have a hole, and training goes on
            ctx.events.emit("warning", code="evaluation_failed", message=f"CORE was not evaluated at step {step}: {err}")
            return {}
        for reason in result.failed.values():
            message = f"a task of CORE was left out at step {step}: {reason}"
            ctx.events.emit("warning", code="evaluation_failed", message=message)
        centered = {label: task["centered"] for label, task in result.tasks.items()}
        ctx.events.emit("eval", name="core", step=step, values=centered, detail={"missing": result.missing})
        return {"core": result.core} if result.core is not None else {}

    return Callback(spec.core_every, run_core)


def _samples(ctx: StageContext, spec: BaseSpec, model: GPT, tokenizer: Tokenizer, ranks: Ranks) -> Callback:
    def emit_samples(step: int) -> Values:
        if ranks.is_main:
            for prompt, text in samples.complete(model, tokenizer):
                ctx.events.emit("sample", step=step, prompt=prompt, text=text)
        return {}

    return Callback(spec.sample_every, emit_samples)

"""base_eval: evaluate a base model. Bits per byte on the train and validation shards, samples, and CORE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from nanochat.config.recipe import BaseEvalSpec
from nanochat.contract.contract import StageContext
from nanochat.contract.stop import StopRequest
from nanochat.data.core_bundle import bundle_root
from nanochat.data.loader import TextLoader
from nanochat.data.shards import ShardIndex
from nanochat.distributed import Ranks
from nanochat.eval import core, machine, samples
from nanochat.eval.bpb import bits_per_byte
from nanochat.eval.core import TaskResult
from nanochat.eval.progress import Progress
from nanochat.model import GPT
from nanochat.planning import plan
from nanochat.tokenizer import Tokenizer
from nanochat.train.session import build_model, section, session, tokenizer_of


def run(ctx: StageContext) -> None:
    """Publish `results`: bits per byte of both splits, CORE, samples and the machine. Raises StageError."""
    spec = section(ctx, "base_eval", BaseEvalSpec)
    with session(ctx, deterministic=False) as ranks, StopRequest(ctx) as stop:
        tokenizer, digest = tokenizer_of(ctx)
        index = ShardIndex.load(ctx.input("shards"))
        bundle = bundle_root(ctx.input("core"))
        model = build_model(ctx, ranks, tokenizer, digest, fresh=None).eval()

        bpb = {
            split: _bits(ctx, spec, model, tokenizer, files, ranks, Progress(ctx, stop, "batch", f"bits per byte, {split}"))
            for split, files in (("train", index.train), ("val", index.val))
        }
        ctx.events.emit("eval", name="bpb", values=bpb)

        completions = samples.complete(model, tokenizer) if ranks.is_main else []
        for prompt, text in completions:
            ctx.events.emit("sample", step=0, prompt=prompt, text=text)

        def emit_task(label: str, result: TaskResult) -> None:
            ctx.events.emit("eval", name=f"core/{label}", values=dict(result))

        result = core.evaluate(
            model,
            tokenizer,
            bundle,
            ranks,
            max_per_task=spec.core_max_per_task,
            batch_tokens=spec.device_batch_size * model.config.sequence_len,
            corrected_baselines=spec.core_baselines == "corrected",
            progress=Progress(ctx, stop, "example"),
            on_task=emit_task,
            warn=lambda message: ctx.events.emit("warning", code="evaluation_out_of_memory", message=message),
        )
        for reason in result.failed.values():
            ctx.events.emit("warning", code="evaluation_failed", message=f"a task of CORE was left out: {reason}")
        if ranks.is_main:
            ctx.events.emit("eval", name="core", values=_core(result), detail=_detail(result))
            ctx.write_result("core.csv", core.table(result))
            ctx.publish_results(
                {
                    "bpb": bpb,
                    "core": asdict(result),
                    "samples": [{"prompt": prompt, "text": text} for prompt, text in completions],
                    "machine": machine.describe(),
                }
            )


def _bits(
    ctx: StageContext, spec: BaseEvalSpec, model: GPT, tokenizer: Tokenizer, files: list[Path], ranks: Ranks, progress: Progress
) -> float:
    batch, length = spec.device_batch_size, model.config.sequence_len
    steps = plan.eval_steps(spec.bpb_tokens, batch, length, ranks.world_size)
    loader = TextLoader(
        files, tokenizer, batch_size=batch, seq_len=length, rank=ranks.rank, world_size=ranks.world_size, seed=ctx.spec.seed
    )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for done in range(steps):
            progress(done, steps)
            yield loader.next_batch()
        progress(steps, steps)

    return bits_per_byte(model, batches(), torch.from_numpy(tokenizer.token_bytes()), ranks)


def _core(result: core.CoreResult) -> dict[str, float]:
    return {} if result.core is None else {"core": result.core}


def _detail(result: core.CoreResult) -> dict[str, object]:
    return {
        "estimate": result.estimate,
        "missing": result.missing,
        "partial": result.partial,
        "failed": result.failed,
        "baselines": result.baselines,
    }

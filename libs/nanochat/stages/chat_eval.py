"""chat_eval: evaluate a chat model on the tasks of the recipe."""

from __future__ import annotations

from nanochat.config.recipe import ChatEvalSpec
from nanochat.contract.contract import StageContext
from nanochat.contract.stop import StopRequest
from nanochat.eval import chat, machine
from nanochat.eval.progress import Progress
from nanochat.tasks import programs, registry
from nanochat.tasks.base import Task
from nanochat.tasks.catalog import BY_NAME
from nanochat.tasks.source import TaskSource
from nanochat.train.session import build_model, section, session, tokenizer_of


def run(ctx: StageContext) -> None:
    """Publish `results`: accuracy of each task, ChatCORE, samples and the machine. Raises StageError."""
    spec = section(ctx, "chat_eval", ChatEvalSpec)
    confined_by = programs.confinement(spec.tasks, spec.trust_generated_code)
    with session(ctx, deterministic=False) as ranks, StopRequest(ctx) as stop:
        tokenizer, digest = tokenizer_of(ctx)
        source = TaskSource.load(ctx.input("tasks"))
        # Load all tasks first, so that missing data end the stage at once and not after hours of evaluation.
        loaded: dict[str, Task] = {n: registry.named(n, "test", source, size=spec.generated_size) for n in spec.tasks}
        model = build_model(ctx, ranks, tokenizer, digest, fresh=None).eval()
        results: dict[str, chat.ChatResult] = {}
        for name, task in loaded.items():
            results[name] = result = chat.evaluate(
                model,
                tokenizer,
                task,
                ranks,
                max_problems=spec.max_problems,
                batch_size=spec.batch_size,
                num_samples=spec.num_samples,
                max_new_tokens=spec.max_new_tokens,
                temperature=spec.temperature,
                top_k=spec.top_k,
                seed=ctx.spec.seed,
                progress=Progress(ctx, stop, "problem", name),
            )
            ctx.events.emit("eval", name=name, values={"accuracy": result.accuracy, "n": result.n})
            for example in result.examples:
                ctx.events.emit("sample", step=0, prompt=example["prompt"], text=example["completion"])
        if ranks.is_main:
            accuracies = {name: result.accuracy for name, result in results.items()}
            chatcore = chat.chatcore(accuracies)
            if chatcore is not None:
                ctx.events.emit("eval", name="chatcore", values={"chatcore": chatcore})
            ctx.publish_results(
                {
                    "source": ctx.spec.config.get("source"),
                    "tasks": {name: _figures(name, result, len(loaded[name])) for name, result in results.items()},
                    "chatcore": chatcore,
                    "chatcore_5": chat.chatcore(accuracies, chat.FIVE),
                    **({"sandbox": confined_by} if confined_by else {}),
                    "samples": [{"task": name, **e} for name, result in results.items() for e in result.examples],
                    "machine": machine.describe(),
                }
            )


def _figures(name: str, result: chat.ChatResult, rows: int) -> dict[str, float | int]:
    return {
        "accuracy": result.accuracy,
        "n": result.n,
        "rows": rows,
        "skipped": result.skipped,
        "baseline": BY_NAME[name].baseline,
    }

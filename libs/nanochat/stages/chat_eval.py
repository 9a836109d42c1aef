"""chat_eval: evaluate a chat model on the tasks of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nanochat.config.recipe import ChatEvalSpec
from nanochat.contract.contract import StageContext, StageError
from nanochat.contract.stop import StopRequest
from nanochat.eval import chat, machine
from nanochat.eval.progress import Progress
from nanochat.tasks import own, programs, registry, sandbox
from nanochat.tasks.base import Task
from nanochat.tasks.questions import Questions
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask
from nanochat.train.session import build_model, section, session, tokenizer_of


def run(ctx: StageContext) -> None:
    """Publish `results`: accuracy of each task, ChatCORE, samples and the machine. Raises StageError, also when no task could run."""
    spec = section(ctx, "chat_eval", ChatEvalSpec)
    programs.confinement(spec.tasks, spec.trust_generated_code)  # refused before the model is loaded
    with session(ctx, deterministic=False) as ranks, StopRequest(ctx) as stop:
        tokenizer, digest = tokenizer_of(ctx)
        failed: dict[str, str] = {}
        loaded = _load(ctx, spec, failed)
        own_programs = [use.name for use in spec.own if use.name in loaded and _runs_programs(loaded[use.name])]
        confined_by = programs.confinement(spec.tasks, spec.trust_generated_code, own_programs)
        if confined_by and not sandbox.default.is_isolated:
            message = f"programs that the model wrote ran confined by no more than this: {confined_by}; the recipe trusts them"
            _warn(ctx, "unconfined_programs", message)
        model = build_model(ctx, ranks, tokenizer, digest, fresh=None).eval()
        warn = partial(_warn, ctx, "evaluation_out_of_memory")
        evaluator = chat.Evaluator(model, tokenizer, ranks, warn)
        answering = chat.Answering(spec.num_samples, spec.max_new_tokens, spec.temperature, spec.top_k, ctx.spec.seed)
        results: dict[str, chat.ChatResult] = {}
        every = evaluator.evaluate(
            loaded,
            spec.max_problems,
            batch_size=spec.batch_size,
            answering=answering,
            progress=Progress(ctx, stop, "problem"),
        )
        for name, result in every:
            if isinstance(result, StageError):
                _leave_out(ctx, failed, name, result)
                continue
            results[name] = result
            ctx.events.emit("eval", name=name, values={"accuracy": result.accuracy, "n": result.n, "stderr": result.stderr})
            for example in result.examples:
                ctx.events.emit("sample", step=0, prompt=example["prompt"], text=example["completion"])
        results = {name: results[name] for name in loaded if name in results}
        if not results:
            raise StageError(f"no task could be evaluated: {'; '.join(failed.values())}", code="no_evaluation")
        if ranks.is_main:
            accuracies = {name: result.accuracy for name, result in results.items()}
            chatcore = chat.chatcore(accuracies)
            if chatcore is not None:
                ctx.events.emit("eval", name="chatcore", values={"chatcore": chatcore})
            ctx.write_result("tasks.csv", chat.table(results))
            ctx.publish_results(
                {
                    "source": ctx.spec.config.get("source"),
                    "tasks": {name: _figures(result, loaded[name]) for name, result in results.items()},
                    "chatcore": chatcore,
                    "chatcore_5": chat.chatcore(accuracies, chat.FIVE),
                    **({"sandbox": confined_by} if confined_by else {}),
                    **({"failed": failed} if failed else {}),
                    "samples": [{"task": name, **e} for name, result in results.items() for e in result.examples],
                    "machine": machine.describe(),
                }
            )


def _load(ctx: StageContext, spec: ChatEvalSpec, failed: dict[str, str]) -> dict[str, Task]:
    """All tasks, before any is evaluated; what is wrong with the others goes into `failed`."""
    source = TaskSource.load(ctx.input("tasks"))
    loaded: dict[str, Task] = {}
    makers: dict[str, Callable[[], Task]] = {
        **{name: partial(registry.named, name, "test", source, size=spec.generated_size) for name in spec.tasks},
        **{use.name: partial(_own, use, source, spec.trust_generated_code) for use in spec.own},
    }
    for name, make in makers.items():
        try:
            loaded[name] = make()
        except StageError as err:
            _leave_out(ctx, failed, name, err)
    return loaded


def _own(use: OwnTask, source: TaskSource, trusted: bool) -> Task:
    """A user's own task. Raises StageError also when it runs programs and this machine cannot confine them."""
    task = own.load(use, source)
    if _runs_programs(task):
        programs.confinement((), trusted, [use.name])
    return task


def _runs_programs(task: Task) -> bool:
    return isinstance(task, Questions) and task.runs_programs


def _leave_out(ctx: StageContext, failed: dict[str, str], name: str, err: StageError) -> None:
    failed[name] = str(err)
    _warn(ctx, "evaluation_failed", f"{name} was not evaluated: {err}")


def _warn(ctx: StageContext, code: str, message: str) -> None:
    ctx.events.emit("warning", code=code, message=message)


def _figures(result: chat.ChatResult, task: Task) -> dict[str, float | int]:
    return {
        "accuracy": result.accuracy,
        "stderr": result.stderr,
        "n": result.n,
        "rows": len(task),
        "skipped": result.skipped,
        "baseline": task.baseline,
        **{f"pass@{k}": share for k, share in result.pass_at.items() if len(result.pass_at) > 1},
    }

"""rl: reinforcement learning on one task whose answers can be judged, starting from the finetuned model."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from nanochat.config.recipe import RlSpec
from nanochat.contract.contract import StageContext
from nanochat.optim import schedule
from nanochat.planning import plan
from nanochat.planning.batches import questions_per_rank
from nanochat.rl import rewards, rollout
from nanochat.rl.policy import Policy, Subject
from nanochat.tasks import registry
from nanochat.tasks.source import TaskSource
from nanochat.train.checkpoint import load_model
from nanochat.train.loop import Callback, Trainer, TrainingJob
from nanochat.train.session import build_model, open_resume, section, session, tokenizer_of
from nanochat.train.work import Forward

LAST = f"pass_at_{rollout.PASS_AT}"


def run(ctx: StageContext) -> None:
    """Publish `model` and `results`. Raises StageError, also on a stop request."""
    spec = section(ctx, "rl", RlSpec)
    with session(ctx, deterministic=spec.deterministic, lengths_vary=True) as ranks:
        questions_per_rank(spec.examples_per_step, ranks.world_size)  # raises before anything is loaded
        tokenizer, digest = tokenizer_of(ctx)
        source = TaskSource.load(ctx.input("tasks"))
        train = registry.named(spec.task, "train", source, size=spec.size, limit=spec.size)
        test = registry.named(spec.task, "test", source, size=spec.eval_examples, limit=spec.eval_examples)
        reward = rewards.load(spec.reward, train)
        resume = open_resume(ctx)
        state = resume.loader_states()[0] if resume else {}  # the same on every rank
        steps = plan.example_steps(spec, len(train))
        start, _ = load_model(ctx.input("model"), ranks.device)
        subject = Subject(build_model(ctx, ranks, tokenizer, digest, fresh=None), start, tokenizer)
        policies: list[Policy] = []
        passed: list[float] = []  # pass@1 to pass@8 in the latest evaluation

        def work(forward: Forward) -> Policy:
            # Made after the optimizer, because the engine's cache takes a share of the memory that is left.
            policies.append(Policy(ctx, ranks, spec, subject, train, reward, state))
            return policies[0]

        def evaluate(step: int) -> float:
            passed[:] = policies[0].evaluate(test, step)
            if step == 0:
                policies[0].state[f"{LAST}_before"] = passed[-1]
            return passed[0]

        job = TrainingJob(
            spec=spec,
            model=subject.model,
            work=work,
            lrm=lambda step, _: schedule.linear(step, steps),
            momentum=lambda _: rollout.MOMENTUM,
            val_name="pass_at_1",
            validate=evaluate,
            higher_is_better=True,
            tokenizer_sha256=digest,
            steps=steps,
            lr_scale=spec.init_lr_frac,
            callbacks=[Callback(spec.eval_every, lambda step: {LAST: passed[-1]}, at_start=True)],
        )
        results = Trainer(ctx, ranks, job, resume).run()
        if ranks.is_main:
            ctx.publish_results(_results(spec, results, policies[0].state))


def _results(spec: RlSpec, results: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    earned = state["rewards"]
    window = max(1, min(10, len(earned) // 4))
    kept = ("steps", "tokens", "train_seconds", "pass_at_1", LAST, "mem_gib", "params", "world_size", "device")
    return {
        "task": spec.task,
        "reward_function": spec.reward,
        "first_reward": fmean(earned[:window]),
        "last_reward": fmean(earned[-window:]),
        "unjudged_answers": state["failed"],
        "pass_at_1_before": results["untrained_pass_at_1"],
        f"{LAST}_before": state[f"{LAST}_before"],
        **{key: results[key] for key in kept},
    }

"""An exported model under lm-eval beside the same model under our own scorer, on the same items of CORE.

lm-eval (EleutherAI) and transformers compute everything on their side: tokens, logits, log-likelihoods and judgements. lm-eval brings some
seventy packages, so that it runs as a process of its own, in any environment that has it, with no network.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanochat.engine.runner import narrow
from nanochat.engine.scorer import Score, ScoredSequence, Scorer
from nanochat.interchange.core_tasks import PREFIX, Shared
from nanochat.interchange.folder import Refused
from nanochat.model import GPT

# The largest difference of a token's log-likelihood, in nats, averaged over its span. In bf16 transformers caps logits in bf16, we in fp32.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.06}


@dataclass(frozen=True, slots=True)
class Agreement:
    """One task. `difference` is the largest of a span's mean log-likelihood; `decided` items are answered otherwise, although their
    best answers differ by more than the tolerance, `ties` although they do not."""

    label: str
    items: int
    left_out: int
    ours: float  # accuracies
    theirs: float
    difference: float
    ties: int
    decided: int

    def holds(self, tolerance: float) -> bool:
        return self.difference <= tolerance and not self.decided


def check_installed(python: str) -> None:
    """Raises Refused when this Python has no lm-eval that can load our models."""
    probe = "import accelerate, lm_eval, torch, transformers; assert int(transformers.__version__.split('.')[0]) >= 5"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().rpartition("\n")[2]
        raise Refused(
            f"{python} has no lm-eval with transformers 5 ({last}). Make an environment of its own:"
            " `uv venv lm-eval && uv pip install --python lm-eval 'lm-eval[hf]' 'transformers>=5'`, and give --lm-eval lm-eval/bin/python"
        )


def run(
    python: str, exported: Path, tasks: Path, shared: Sequence[Shared], out: Path, *, dtype: torch.dtype, limit: int
) -> dict[str, list[dict[str, Any]]]:
    """Let lm-eval judge the tasks. Returns its record of each item, by label, in the order of the items. Raises Refused."""
    name = str(dtype).removeprefix("torch.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = [python, "-m", "lm_eval", "run", "--model", "hf"]
    command += ["--model_args", f"pretrained={exported},dtype={name},max_length={limit}"]
    command += ["--trust_remote_code"] if (exported / "modeling_nanochat_modern.py").exists() else []
    command += ["--tasks", *(PREFIX + one.task.label for one in shared), "--include_path", str(tasks)]
    command += ["--device", device, "--batch_size", "8", "--log_samples", "--output_path", str(out)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out / "cache"), "HF_MODULES_CACHE": str(out / "modules")}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"lm-eval ended with exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return {one.task.label: _samples(out, one.task.label) for one in shared}


def compare(
    model: GPT, shared: Sequence[Shared], theirs: dict[str, list[dict[str, Any]]], *, dtype: torch.dtype
) -> list[Agreement]:
    """Score the same items ourselves, and set both beside each other."""
    scorer = Scorer(narrow(model, dtype), dtype=dtype)
    return [_compare(model, one, scorer.spans(one.items), theirs[one.task.label], TOLERANCE[dtype]) for one in shared]


def told(found: Sequence[Agreement]) -> str:
    """A table for people."""
    lines = [f"{'task':34}{'items':>6}{'left out':>10}{'ours':>8}{'lm-eval':>9}{'nats':>10}{'ties':>6}{'otherwise':>11}"]
    lines += [
        f"{one.label:34}{one.items:6}{one.left_out:10}{one.ours:8.3f}{one.theirs:9.3f}{one.difference:10.1e}{one.ties:6}{one.decided:11}"
        for one in found
    ]
    return "\n".join(lines) + "\n"


def _samples(out: Path, label: str) -> list[dict[str, Any]]:
    files = sorted(out.rglob(f"samples_{PREFIX}{label}_[0-9]*.jsonl"))
    if not files:
        raise Refused(f"lm-eval wrote no samples of {PREFIX}{label} into {out}")
    records = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
    return sorted(records, key=lambda record: record["doc_id"])


def _compare(
    model: GPT, one: Shared, ours: Sequence[Sequence[Score]], records: Sequence[dict[str, Any]], tolerance: float
) -> Agreement:
    if len(records) != len(ours):
        raise Refused(f"lm-eval judged {len(records)} of the {len(ours)} items of {one.task.label}")
    difference, ties, decided, right = 0.0, 0, 0, 0
    for rows, scores, gold, record in zip(one.items, ours, one.gold, records, strict=True):
        answers = [(float(answer[0][0]), str(answer[0][1]) == "True") for answer in record["resps"]]
        if len(answers) != len(rows):
            raise Refused(f"lm-eval asked {len(answers)} questions for the {len(rows)} of an item of {one.task.label}")
        means = [-total / (row.end - row.start) for (total, _), row in zip(answers, rows, strict=True)]
        losses = [loss for loss, _ in scores]
        difference = max(difference, *(abs(mean - loss) for mean, loss in zip(means, losses, strict=True)))
        if one.task.kind == "language_modeling":
            exact = scores[0][1]
            differ, right = exact != answers[0][1], right + exact
            near = differ and _short(model, rows[0]) <= 2 * tolerance
        else:
            mine, other = losses.index(min(losses)), means.index(min(means))
            differ, right = mine != other, right + (mine == gold)
            near = abs(losses[mine] - losses[other]) <= 2 * tolerance
        ties, decided = ties + (differ and near), decided + (differ and not near)
    count = max(1, len(records))
    theirs = sum(record["acc"] for record in records) / count
    return Agreement(one.task.label, len(records), one.left_out, right / count, theirs, difference, ties, decided)


@torch.no_grad()
def _short(model: GPT, row: ScoredSequence) -> float:
    """By how much a token of the span has a smaller logit than the likeliest, at most."""
    logits = model(torch.tensor([row.ids], device=model.get_device()))[0, row.start - 1 : row.end - 1].float()
    targets = torch.tensor(row.ids[row.start : row.end], device=logits.device)
    return float((logits.amax(dim=-1) - logits.gather(1, targets[:, None])[:, 0]).max())

"""A small tokenizer, small models with random weights (none is zero), a small CORE bundle, and a small run of all stages."""

import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import rustbpe
from nanochat.__main__ import run as run_stage
from nanochat.config.recipe import Recipe, resolve
from nanochat.contract.contract import EVENTS, MANIFEST, Artifact, StageSpec
from nanochat.contract.events import read
from nanochat.contract.launch import stage_command
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.planning import graph
from nanochat.tokenizer import Tokenizer
from nanochat.train import meter

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on while the fox runs away.",
    "Question: what is 12 + 30? Answer: 42. The answer to the question is 42, and 48/2 is 24.",
    "How many letters a are there in banana? There are 3 of them: b,a,n,a,n,a.",
    "A language model reads text and predicts what comes next; it is trained on many words.",
)


@pytest.fixture(autouse=True, scope="session")
def _every_step_is_reported():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "QUIET_S", 0.0)
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer of 400 tokens, including the nine special ones."""
    return Tokenizer.from_merges(rustbpe.train(CORPUS, 400 - 9))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., GPT]:
    """`make_model(vocab_size=400, depth=2, seq_len=64, seed=1, **switches)` makes a model on the CPU in fp32.

    All weights are random. The switches are those of `GPTConfig`.
    """

    def make(vocab_size: int = 400, *, depth: int = 2, seq_len: int = 64, seed: int = 1, **switches: Any) -> GPT:
        torch.manual_seed(seed)
        model = GPT(GPTConfig(seq_len, vocab_size, depth, 2, 2, 32 * depth, **switches))
        init_weights(model)
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.3)
        return model.eval()

    return make


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle")


def write_bundle(folder: Path) -> Path:
    """Write a bundle with three CORE tasks, one of each kind, a fourth without its file, and a fifth that is not in CORE."""
    folder.mkdir()
    entries = [
        ("copa", "c.jsonl", "multiple_choice", 0),
        ("winograd", "w.jsonl", "schema", 1),
        ("jeopardy", "j.jsonl", "language_modeling", 2),
        ("coqa", "missing.jsonl", "language_modeling", 0),
        ("siqa", "c.jsonl", "multiple_choice", 0),
    ]
    tasks = [{"label": a, "dataset_uri": b, "icl_task_type": c, "num_fewshot": [d]} for a, b, c, d in entries]
    (folder / "core.yaml").write_text(json.dumps({"icl_tasks": tasks}))  # JSON is valid YAML
    lines = [f"{label},{50 if label in ('copa', 'winograd') else 0}" for label, *_ in entries]
    (folder / "eval_meta_data.csv").write_text("Eval Task,Random baseline\n" + "\n".join(lines) + "\n")
    data = folder / "eval_data"
    data.mkdir()
    choices = [{"query": f"the dog {i}", "choices": [f"runs {i}", "sleeps on and on"], "gold": i % 2} for i in range(9)]
    schema = [{"context_options": [f"fox {i} said", "a dog"], "continuation": "runs away.", "gold": i % 2} for i in range(7)]
    words = [{"context": f"{i} and {i + 1}", "continuation": f"text {i}"} for i in range(5)]
    for name, rows in (("c", choices), ("w", schema), ("j", words)):
        (data / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


# -- a whole run --


@dataclass
class Run:
    """Runs the stages of a recipe in this process. Each stage gets the artifacts of the stages before it."""

    root: Path
    recipe: Recipe
    outputs: dict[str, Artifact] = field(default_factory=dict)

    def spec(self, name: str, out: Path, **changes: Any) -> StageSpec:
        stage = next(s for s in graph.stages(self.recipe) if s.name == name)
        config = graph.config(self.recipe, stage)
        for section, values in changes.pop("config", {}).items():
            config[section] = {**config[section], **values}  # type: ignore[dict-item]
        return StageSpec(
            run="r_test",
            stage=name,
            kind=stage.kind,
            config=config,
            inputs={key: self.outputs[source] for key, source in stage.inputs.items()},
            output_dir=str(out),
            cache_dir=str(self.root / "cache"),
            device="cpu",
            **changes,
        )

    def stage(self, name: str) -> Path:
        """The folder of a stage. The first call runs the stage, and before it the stages it depends on."""
        out = self.root / name
        if not (out / MANIFEST).exists():
            stage = next(s for s in graph.stages(self.recipe) if s.name == name)
            for source in stage.inputs.values():
                self.stage(source.split(".")[0])
            assert run_stage(self.spec(name, out)) == 0, list(read(out / EVENTS))
            manifest = json.loads((out / MANIFEST).read_text())
            self.outputs |= {f"{name}.{key}": Artifact(**value) for key, value in manifest["outputs"].items()}
        return out

    def results(self, name: str) -> dict[str, Any]:
        return json.loads((self.stage(name) / "results/results.json").read_text())

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        return [e for e in read(self.stage(name) / EVENTS) if e["kind"] == kind]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Run:
    """A run with every stage, including reinforcement learning, on the manual of Python. A stage runs on its first use."""
    root = tmp_path_factory.mktemp("run")
    texts = [text for text in topics.values() if len(text) > 400]
    (root / "text").mkdir()
    for number, part in enumerate((texts[:60], texts[60:70])):
        pq.write_table(pa.table({"text": part}), root / f"text/{number}.parquet", row_group_size=8)
    overrides = {
        "data.source": {"kind": "folder", "path": str(root / "text")},
        "data.tok_chars": 100_000,
        "data.core": str(write_bundle(root / "bundle")),
        "tokenizer": {"vocab_size": 500, "max_chars": 200_000},
        "model": {"depth": 2, "seq_len": 128},
        "base": {"device_batch_size": 4, "total_batch_size": 1024, "num_iterations": 6, "eval_every": -1, "eval_tokens": 512},
        "base_eval": {"bpb_tokens": 1024, "core_max_per_task": None, "device_batch_size": 4, "allow_incomplete": True},
        "mid": {"device_batch_size": 4, "total_batch_size": 512, "num_iterations": 2, "eval_tokens": 512},
        "sft": {"device_batch_size": 4, "examples_per_step": 4, "num_iterations": 2, "eval_batches": 1},
        "rl": {
            "enabled": True,
            "num_iterations": 4,
            "device_batch_size": 2,
            "num_samples": 4,
            "examples_per_step": 2,
            "max_new_tokens": 8,
            "eval_every": 2,
            "eval_examples": 2,
            "save_every": 1,
        },
        "chat_eval": {"max_problems": 3, "max_new_tokens": 8, "tasks": ["sums", "spelling"]},
    }
    return Run(root, resolve("tiny", overrides))


@pytest.fixture(scope="module")
def one_core() -> Iterator[None]:
    """Use one core: with models this small, several threads mostly wait for each other, most of all beside other tests."""
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if cores:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., None]:
    """`torchrun(2, kind, spec)` runs a stage on two ranks, which may use all cores of the machine."""
    cores = range(os.cpu_count() or 1)

    def run(ranks: int, kind: str, spec: Path) -> None:
        free = functools.partial(os.sched_setaffinity, 0, cores) if hasattr(os, "sched_setaffinity") else None
        subprocess.run(stage_command(kind, spec, ranks), check=True, timeout=500, capture_output=True, preexec_fn=free)

    return run

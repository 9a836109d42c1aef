"""Every stage of a small recipe, one after another in this process: `python whole_run.py FOLDER`. Run in the worker's image.

A stage imports much of what it needs only when it comes to it, so that an import which fails shows only when it runs. Prints
{"stage.output": {"path": ..., "sha256": ...}} as its last line.
"""

import json
import sys
from pathlib import Path

from nanochat.__main__ import run
from nanochat.config.recipe import resolve
from nanochat.contract.contract import MANIFEST, Artifact, StageSpec
from nanochat.planning import graph

RECIPE = {
    "data": {"source": {"kind": "pydocs", "max_chars": 300_000}, "tok_chars": 200_000},
    "tokenizer": {"vocab_size": 512, "max_chars": 200_000},
    "model": {"depth": 2, "seq_len": 64},
    "base": {"device_batch_size": 4, "total_batch_size": 256, "num_iterations": 2, "eval_tokens": 256, "save_every": -1},
    "base_eval": {"bpb_tokens": 256, "device_batch_size": 4},
    "mid": {"device_batch_size": 4, "total_batch_size": 256, "num_iterations": 2, "eval_tokens": 256, "save_every": -1},
    "sft": {"device_batch_size": 2, "examples_per_step": 2, "num_iterations": 2, "eval_batches": 1, "save_every": -1},
    "rl": {
        "enabled": True,
        "num_iterations": 1,
        "device_batch_size": 2,
        "num_samples": 2,
        "examples_per_step": 1,
        "max_new_tokens": 4,
        "eval_examples": 1,
        "save_every": -1,
    },
    "chat_eval": {"tasks": ["sums", "spelling"], "max_problems": 2, "max_new_tokens": 4, "generated_size": 4},
}


def main(root: Path) -> int:
    recipe = resolve("tiny", RECIPE)
    outputs: dict[str, Artifact] = {}
    waiting = graph.stages(recipe)
    while waiting:
        stage = next(s for s in waiting if outputs.keys() >= set(s.inputs.values()))
        spec = StageSpec(
            run="r_image",
            stage=stage.name,
            kind=stage.kind,
            config=graph.config(recipe, stage),
            inputs={name: outputs[source] for name, source in stage.inputs.items()},
            output_dir=str(root / stage.name),
            cache_dir=str(root / "cache"),
            device="cpu",
        )
        if code := run(spec):
            return code
        published = json.loads((spec.out / MANIFEST).read_text())["outputs"]
        outputs |= {f"{stage.name}.{name}": Artifact(**artifact) for name, artifact in published.items()}
        waiting = [s for s in waiting if s is not stage]
    print(json.dumps({name: artifact.model_dump() for name, artifact in outputs.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

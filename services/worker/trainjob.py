"""A stage as a job of a cluster: `python -m services.worker.trainjob STAGE.JSON --nodes N --gpus G --image I | kubectl apply -f -`.

It prints a TrainJob (Kubeflow Trainer, trainer.kubeflow.org/v1alpha1) for the runtime in `k8s/trainjob/runtime.yaml`. Trainer makes a
JobSet of it with one pod per node and tells torchrun in each pod where to meet (the variables PET_*). Kueue holds the job back until
its queue has quota for all nodes at once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nanochat.contract.contract import StageSpec

RUNTIME, QUEUE = "nanochat", "nanochat"
NAME_LIMIT = 63 - len("-node-0-00")  # characters; the names of the job's pods have to be DNS labels


def train_job(spec: StageSpec, path: Path, *, nodes: int, gpus: int, image: str, queue: str = QUEUE) -> dict[str, Any]:
    """The TrainJob of the stage that the file `path` describes. The pods see that file under the same path."""
    resources = {"nvidia.com/gpu": gpus} if gpus else {}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name_of(spec),
            "labels": {"kueue.x-k8s.io/queue-name": queue, "nanochat/run": spec.run, "nanochat/stage": spec.stage},
        },
        "spec": {
            "suspend": True,  # Kueue ends the suspension
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": RUNTIME},
            "trainer": {
                "image": image,
                "command": ["torchrun", "-m", "nanochat", spec.kind, "--spec", str(path)],
                "numNodes": nodes,
                "numProcPerNode": max(1, gpus),
                "resourcesPerNode": {"limits": resources, "requests": resources},
            },
        },
    }


def name_of(spec: StageSpec) -> str:
    """A DNS label that no other attempt has. A long stage name is cut; the run and the attempt are not."""
    run, stage = (re.sub(r"[^a-z0-9]+", "-", text.lower()) for text in (spec.run, spec.stage))
    room = NAME_LIMIT - len(f"{run}--{spec.attempt}")
    return f"{run}-{stage[:room].strip('-')}-{spec.attempt}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.worker.trainjob", description=__doc__)
    parser.add_argument("spec", type=Path, help="stage.json, under the path that the pods see")
    parser.add_argument("--nodes", type=_positive, default=1)
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of each node; 0 trains on the CPU with one rank per node")
    parser.add_argument("--image", required=True, help="nanochat-worker with its tag")
    parser.add_argument("--queue", default=QUEUE, help="the LocalQueue of Kueue")
    options = parser.parse_args(argv)
    try:
        spec = StageSpec.model_validate_json(options.spec.read_bytes())
    except (OSError, ValidationError) as err:
        sys.stderr.write(f"{options.spec} is no stage specification: {err}\n")
        return 2
    job = train_job(
        spec, options.spec.absolute(), nodes=options.nodes, gpus=options.gpus, image=options.image, queue=options.queue
    )
    sys.stdout.write(json.dumps(job, indent=1) + "\n")
    return 0


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


if __name__ == "__main__":
    raise SystemExit(main())

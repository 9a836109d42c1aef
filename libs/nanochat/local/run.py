"""Run a whole recipe on this machine, without any service: `python -m nanochat.local.run tiny --out runs/first`.

Every stage runs under torchrun, as on the platform, as soon as its input artifacts are published: at most one `gpu` stage and
two `cpu` stages at a time. Run it again with the same `--out` to keep the stages that succeeded and resume the others. Stages
whose settings or inputs differ from before run anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from nanochat.config.recipe import Recipe, RecipeError
from nanochat.contract.contract import (
    EVENTS,
    MANIFEST,
    SPEC,
    STOP,
    Artifact,
    Exit,
    ExitReport,
    StageError,
    StageSpec,
    write_json,
)
from nanochat.contract.events import read
from nanochat.contract.launch import launch, stage_command
from nanochat.local import options
from nanochat.local.card import write_card
from nanochat.local.earlier import Earlier, look
from nanochat.local.lines import line_of
from nanochat.local.loggers import copied_to
from nanochat.loggers.sinks import SINKS, missing
from nanochat.planning import graph, plan
from nanochat.planning.checked import checked
from nanochat.tasks.programs import confinement

SLOTS = {"cpu": 2, "gpu": 1}
POLL_S = 0.2
STOP_S = 60.0  # for a stage that was asked to stop to save a checkpoint


@dataclass(slots=True)
class Node:
    """A stage of this run, with its current attempt. `earlier` is set once its inputs are there."""

    stage: graph.StageDef
    home: Path
    earlier: Earlier | None = None
    attempt: int = 1
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None
    seen: int = 0  # events already printed
    outputs: dict[str, Artifact] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.home / f"attempt-{self.attempt}"

    @property
    def is_hole(self) -> bool:
        """Whether it is an evaluation that failed: the report lacks its figures, and all else goes on."""
        return self.stage.is_side and self.code not in (None, Exit.OK, Exit.STOPPED)

    @property
    def running(self) -> bool:
        return self.process is not None and self.code is None


def run(recipe: Recipe, out: Path, *, cache: Path, stop: threading.Event, nproc: int = 1) -> int:
    """Run every stage and return an Exit code. Prints progress; the output of each stage goes to its `stdout.log`.

    Once `stop` is set the stages save their work and end, however many signals arrive meanwhile.
    """
    nodes = {s.name: Node(s, out / s.name) for s in graph.stages(recipe)}
    try:
        while not stop.is_set():
            for node in nodes.values():
                _collect(node)
            failed = [n for n in nodes.values() if n.code not in (None, Exit.OK) and not n.is_hole]
            if failed:
                return _fail(failed[0])
            if all(n.code is not None for n in nodes.values()):
                return Exit.OK
            for node in nodes.values():
                _start_if_ready(node, nodes, recipe, cache, nproc)
            stop.wait(POLL_S)
        return Exit.STOPPED
    finally:
        _stop(nodes)


def _start_if_ready(node: Node, nodes: dict[str, Node], recipe: Recipe, cache: Path, nproc: int) -> None:
    if node.process is not None or node.code is not None or (inputs := _inputs(node, nodes)) is None:
        return
    if node.earlier is None:
        node.earlier = look(node.home, _spec(node, inputs, recipe, cache))
        node.attempt = node.earlier.kept or node.earlier.last + 1
    if node.earlier.outputs is not None:
        node.code, node.outputs = Exit.OK, node.earlier.outputs
        _say(node.stage.name, "kept from before")
        return
    if sum(n.running for n in nodes.values() if n.stage.queue == node.stage.queue) >= SLOTS[node.stage.queue]:
        return
    spec = _spec(node, inputs, recipe, cache)
    node.out.mkdir(parents=True, exist_ok=True)
    write_json(node.out / SPEC, spec.model_dump(mode="json"))
    command = stage_command(node.stage.kind, node.out / SPEC, nproc if node.stage.queue == "gpu" else 1)
    node.process = launch(command, dict(os.environ), node.out / "stdout.log")
    if spec.resume_from:
        _say(node.stage.name, f"started, resuming from {spec.resume_from.path}")
    else:
        _say(node.stage.name, "started" + (f" anew: {node.earlier.difference}" if node.earlier.difference else ""))


def _inputs(node: Node, nodes: dict[str, Node]) -> dict[str, Artifact] | None:
    """The artifacts that a stage reads; None while one of them is still to come."""
    inputs = {}
    for name, source in node.stage.inputs.items():
        producer, output = source.split(".")
        artifact = nodes[producer].outputs.get(output)
        if artifact is None and nodes[producer].is_hole:
            continue
        if artifact is None:
            return None
        inputs[name] = artifact
    return inputs


def _spec(node: Node, inputs: dict[str, Artifact], recipe: Recipe, cache: Path) -> StageSpec:
    return StageSpec(
        run=node.home.parent.name,
        stage=node.stage.name,
        kind=node.stage.kind,
        attempt=node.attempt,
        config=graph.config(recipe, node.stage),
        seed=recipe.seed,
        inputs=inputs,
        output_dir=str(node.out.resolve()),
        cache_dir=str(cache.resolve()),
        resume_from=node.earlier.checkpoint if node.earlier else None,
    )


def _collect(node: Node) -> None:
    """Print the new events of a stage. When its process has ended, set its exit code."""
    if node.process is None or node.code is not None:
        return
    code = node.process.poll()
    events = list(read(node.out / EVENTS))
    for event in events[node.seen :]:
        if event["kind"] == "artifact":
            node.outputs[event["name"]] = Artifact(path=event["path"], sha256=event["sha256"])
        line = line_of(event)
        if line:
            _say(node.stage.name, line)
    node.seen = len(events)
    if code is not None:
        done = code == 0 and (node.out / MANIFEST).exists()
        report = ExitReport.load(node.out)
        node.code = Exit.OK if done else (report.exit_code if report else code or 1)
        if done:
            _say(node.stage.name, "done")
        elif node.is_hole:
            _say(
                node.stage.name,
                f"failed with exit code {node.code}; the rest goes on without it; see {node.out / 'stdout.log'}",
            )


def _fail(node: Node) -> int:
    assert node.code is not None
    if node.code == Exit.STOPPED:
        _say(node.stage.name, "stopped on request; the same command goes on from here")
        return node.code
    _say(node.stage.name, f"failed with exit code {node.code}; see {node.out / 'stdout.log'}")
    return node.code


def _stop(nodes: dict[str, Node]) -> None:
    """Ask running stages to save a checkpoint and stop. After a minute, kill the process group of any that still runs."""
    running = [n for n in nodes.values() if n.process is not None and n.process.poll() is None]
    for node in running:
        (node.out / STOP).touch()
    for node in running:
        assert node.process is not None
        try:
            node.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(node.process.pid, signal.SIGKILL)  # its ranks die with it
            node.process.wait()


def _say(stage: str, text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {stage:<14} {text}\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nanochat local-run", description=__doc__)
    options.add_recipe(parser)
    parser.add_argument("--out", type=Path, help="directory of the run (default .nanochat/local/<recipe>)")
    parser.add_argument("--nproc", type=int, default=1, help="processes per training stage, one per GPU (default 1)")
    parser.add_argument(
        "--log", nargs="+", default=[], choices=sorted(SINKS), metavar="TRACKER", help="also log to " + ", ".join(sorted(SINKS))
    )
    args = parser.parse_args(argv)
    if absent := missing(args.log):
        sys.stderr.write(f"--log: {absent[0]} is not installed; pip install 'nanochat-platform[loggers]', or leave it out\n")
        return Exit.BAD_INPUT
    try:
        recipe, _ = checked(args.recipe, args.overrides, lambda recipe: _planned(recipe, args.nproc))
    except RecipeError as err:
        for name, text in err.problems:
            sys.stderr.write(f"{name}: {text}\n")
        return Exit.BAD_INPUT
    home = Path(os.environ.get("NANOCHAT_HOME") or ".nanochat")
    out = args.out or home / "local" / recipe.name
    # No exception out of a handler: `timeout` sends SIGTERM twice, and the second would end the stopping of the stages.
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with copied_to(args.log, out.resolve()):
        code = run(recipe, out.resolve(), cache=home / "cache", stop=stop, nproc=args.nproc)
    _say("report", write_card(out.resolve(), recipe, code))
    return code


def _planned(recipe: Recipe, nproc: int) -> plan.Plan:
    """The plan. Raises RecipeError, also when this machine cannot run the programs that the recipe's evaluation asks for."""
    if recipe.chat_eval.enabled:
        try:
            confinement(recipe.chat_eval.tasks, recipe.chat_eval.trust_generated_code)
        except StageError as err:
            raise RecipeError([("chat_eval.tasks", f"{err}; {err.hint}")]) from err
    return plan.plan(recipe, nproc)


if __name__ == "__main__":
    raise SystemExit(main())

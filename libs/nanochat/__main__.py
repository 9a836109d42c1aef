"""Run one stage without the platform: `python -m nanochat <stage kind> --spec stage.json`, under torchrun for several ranks."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path

from pydantic import ValidationError

from nanochat.contract import lease
from nanochat.contract.causes import code_of
from nanochat.contract.contract import EVENTS, MANIFEST, STOP, Exit, ExitReport, StageContext, StageError, StageSpec, write_json
from nanochat.contract.events import EventLog, read
from nanochat.planning.graph import STAGES

# Set this before torch is loaded. By default, OpenMP's threads spin while they wait, and on a machine that is busy with other
# work a step takes up to ten times as long (measured on two busy cores: 20 s against 2 to 6 s; no difference on idle cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

KINDS = sorted({s.kind for s in STAGES})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nanochat", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--spec", type=Path, required=True, help="path of stage.json")
    args = parser.parse_args(argv)
    _die_with_parent()
    try:
        spec = StageSpec.model_validate_json(args.spec.read_bytes())
    except OSError as err:
        return _refused(f"cannot read {args.spec}: {err.strerror}")
    except ValidationError as err:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}" for fault in err.errors()]
        return _refused(f"{args.spec} is no stage specification: {'; '.join(faults)}")
    if spec.kind != args.kind:
        return _refused(f"{args.spec} is for stage kind {spec.kind!r}, not {args.kind!r}")
    return run(spec)


def _refused(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return Exit.BAD_INPUT


def run(spec: StageSpec) -> int:
    """Run the stage of `spec` in this process and return its exit code. Every failure is written as an `error` event."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        spec.out.mkdir(parents=True, exist_ok=True)
    except OSError as err:  # perhaps a file system that comes back, so the platform may retry
        sys.stderr.write(f"cannot make output_dir {spec.out}: {err.strerror}\n")
        return Exit.FAILED
    lease.watch(spec.out, spec.out / STOP, Exit.STOPPED)
    events = EventLog(spec.out / EVENTS if rank == 0 else None)
    ctx = StageContext(spec, events, rank, world)
    try:
        importlib.import_module(f"nanochat.stages.{spec.kind}").run(ctx)
    except StageError as err:
        return _failed(ctx, ExitReport.of(err, rank))
    except Exception as err:
        traceback.print_exc()
        text = f"{type(err).__name__}: {err}"
        return _failed(ctx, ExitReport(exit_code=Exit.FAILED, code=code_of(err), message=text, rank=rank))
    finally:
        events.close()
    if rank == 0:
        _finish(spec)
    return Exit.OK


def _failed(ctx: StageContext, report: ExitReport) -> int:
    with contextlib.suppress(OSError):  # on a full disk the worker still sees the free space and the output
        report.save(ctx.out)
        ctx.events.emit("error", **report.model_dump())
    sys.stderr.write(f"{ctx.spec.stage}: {report.message}{'; ' + report.hint if report.hint else ''}\n")
    return report.exit_code


def _finish(spec: StageSpec) -> None:
    """Write the stage's manifest: the outputs that it published, by digest. This is the last file a stage writes."""
    outputs = {
        e["name"]: {"path": e["path"], "sha256": e["sha256"]} for e in read(spec.out / EVENTS) if e["kind"] == "artifact"
    }
    write_json(
        spec.out / MANIFEST,
        {"version": 1, "run": spec.run, "stage": spec.stage, "attempt": spec.attempt, "outputs": outputs},
    )


def _die_with_parent() -> None:
    """On Linux, have the kernel kill this rank when torchrun dies, so that no orphan keeps a GPU (PR_SET_PDEATHSIG = 1)."""
    if sys.platform == "linux" and os.environ.get("RANK"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main())

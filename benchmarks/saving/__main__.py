"""How long saving a checkpoint makes the training wait and, on a GPU, how fast steps are while the checkpoint is written.

The peer is our own save when the training waits until everything is on the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.cards import cards, device
from benchmarks.options import Options, Parser, folder, positive_int
from benchmarks.process import run_job
from benchmarks.result import finish, measurement

SAVES = 3
ROWS, TOKENS = 8, 2048  # of a training step


@dataclass(frozen=True, kw_only=True)
class SavingOptions(Options):
    depth: int | None
    folder: Path | None


def main(argv: list[str] | None = None) -> None:
    parser = Parser("saving", __doc__)
    parser.add_argument(
        "--depth", type=positive_int, metavar="N", help="of the model (20 on a GPU, 12 on a CPU, 4 with --quick)"
    )
    parser.add_argument("--folder", type=folder, help="where checkpoints are written (the system's folder for temporary files)")
    options = parser.parse(SavingOptions, argv)

    depth = options.depth or (4 if options.quick else 20 if cards() else 12)
    job = {
        "depth": depth,
        "folder": str(options.folder) if options.folder else None,
        "saves": SAVES,
        "rows": ROWS,
        "tokens": TOKENS,
    }
    found = run_job("benchmarks.saving.job", job)
    stall, waiting = max(found["stalls_s"]), median(found["waits_s"])
    name = f"d{depth}, {found['gib']:.2f} GiB"
    print(
        f"{name} on {device()}: a save stalls the training for {stall:.3f} s (the first {found['stalls_s'][0]:.3f} s); "
        f"{waiting:.2f} s if the training waits for the write"
    )
    rows = [
        measurement(f"stall of a save, {name}", stall, "s", "lower", must=1.0),
        measurement(f"save, {name}", stall, "s", "lower", "waiting until it is written", waiting),
    ]
    if found["steps_s"]:
        alone, busy = (1000 * median(found[key]) for key in ("steps_s", "steps_while_writing_s"))
        print(f"a step of {ROWS} x {TOKENS}: {alone:.0f} ms, while the thread writes {busy:.0f} ms")
        rows.append(measurement("step while a checkpoint is written", busy, "ms", "lower", "step", alone))
    finish("saving", device(), rows, options)


if __name__ == "__main__":
    main()

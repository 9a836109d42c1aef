"""CORE and the chat tasks, each with all of its examples: ours beside a loop that takes one item at a time, on the same weights.

On a GPU: d20 in bf16 with random weights. On a CPU: the recipe `tiny`. Without --data the examples are random tokens in the sizes
of the real ones (benchmarks/eval/sizes.json); an answer has as many tokens as the reference answer. Seconds are those of the model (on
a CPU, of all cores together): tokens are made before, and nothing is judged. Both sides run on a part of the examples and are scaled
to all of them.
Needs only torch, numpy, safetensors, pydantic and this tree; --data needs the whole environment.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cards import device
from benchmarks.options import Options, Parser, folder, names_of, positive_int, positive_number
from benchmarks.process import attempted
from benchmarks.result import Measurement, finish, show

PARTS = ("core", "chat")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Options):
    recipe: str | None
    depth: int | None
    dtype: str | None
    data: Path | None
    share: float | None
    peer_items: int | None
    only: list[str] | None


def main(argv: list[str] | None = None) -> None:
    parser = Parser("eval", __doc__)
    parser.add_model()
    parser.add_dtype()
    parser.add_argument("--data", type=eval_folder, metavar="FOLDER", help="core/ and folders of chat tasks, as ../shared/data")
    parser.add_argument(
        "--share",
        type=share,
        metavar="X",
        help="part of each task's examples that ours evaluates (1 on a GPU, 0.004 on a CPU; quick 0.0005)",
    )
    parser.add_argument(
        "--peer-items",
        type=positive_int,
        metavar="N",
        help="examples of each task that the loop takes, at most; answers are fewer (48 on a GPU, 8 on a CPU; quick 1)",
    )
    parser.add_argument("--only", type=names_of(PARTS), metavar="NAME,…", help=f"of {', '.join(PARTS)} (both)")
    options = parser.parse(EvalOptions, argv)

    from benchmarks.eval.parts import Bench, chat, core, together  # imports torch: only after the options have been checked

    bench = Bench(options)
    print(bench.title, flush=True)
    rows: list[Measurement] = []
    failed: list[str] = []
    parts: dict[str, Callable[[Bench], Iterator[Measurement]]] = {"core": core, "chat": chat}
    for name in options.only or PARTS:
        with attempted(name, failed):
            for row in parts[name](bench):
                rows.append(row)
                show(row)
    for row in together(bench):
        rows.append(row)
        show(row)
    finish("eval", device(), rows, options)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def share(text: str) -> float:
    value = positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 1, all examples")
    return value


def eval_folder(text: str) -> Path:
    path = folder(text)
    if not (path / "core/core.yaml").is_file():
        raise argparse.ArgumentTypeError(f"there is no core/core.yaml in {text!r}")
    return path


if __name__ == "__main__":
    main()

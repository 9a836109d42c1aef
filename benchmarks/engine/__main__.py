"""The engine alone, without a server, on a model with random weights.

On a GPU: d20 in bf16, prompts of 512 tokens, 128 new ones, temperature 1, top-k 50. "Decoding" counts tokens while every stream
decodes. Its bandwidth use is what a step must read (each weight once, the keys and values at the mean context), divided by
the step's time and by what a copy of 2 GiB reaches. On a CPU: the recipe `tiny`, prompts of 128 tokens, 64 new ones.
Needs only torch, numpy, safetensors, pydantic and this tree, and transformers >= 5 for `--peer transformers`.
"""

from __future__ import annotations

from benchmarks.cards import cards, device
from benchmarks.engine.parts import PARTS, Bench, EngineOptions
from benchmarks.options import Parser, names_of, positive_ints
from benchmarks.process import attempted
from benchmarks.result import Measurement, finish, show


def main(argv: list[str] | None = None) -> None:
    parser = Parser("engine", __doc__)
    parser.add_model()
    parser.add_argument(
        "--batches", type=positive_ints, metavar="N,…", help="numbers of streams (1,32,128 on a GPU, 1,32 on a CPU)"
    )
    parser.add_dtype()
    parser.add_argument(
        "--kv-cache",
        choices=["model", "fp8"],
        default="model",
        metavar="NAME",
        help="keys and values in the model's type, or fp8",
    )
    parser.add_argument(
        "--weights", choices=["model", "int8"], default="model", metavar="NAME", help="the model's own, or rounded to int8"
    )
    parser.add_argument(
        "--only", type=names_of(PARTS), metavar="NAME,…", help=f"of {', '.join(PARTS)} (all that the device has)"
    )
    parser.add_argument(
        "--peer", choices=["transformers"], metavar="NAME", help="also measure transformers >= 5, where it is installed"
    )
    parser.add_argument("--profile", action="store_true", help="also tell where a decoding step of each batch spends its time")
    options = parser.parse(EngineOptions, argv)

    if options.kv_cache == "fp8" and not cards():
        parser.error("argument --kv-cache: fp8 needs an NVIDIA GPU")
    if options.weights == "int8" and not cards():
        parser.error("argument --weights: int8 needs an NVIDIA GPU")
    bench = Bench(options)
    print(bench.title, flush=True)
    rows: list[Measurement] = []
    failed: list[str] = []
    for name, part in PARTS.items():
        if name not in (options.only or PARTS) or not part.on(bench.gpu) or (name == "peer" and not options.peer):
            continue
        with attempted(name, failed):
            for row in part.measure(bench):
                rows.append(row)
                show(row)
    finish("engine", device(), rows, options)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

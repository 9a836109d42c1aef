"""Reinforcement learning on a model with random weights: how fast it samples answers, and where a step spends its time.

The rows beside "question by question" have the same questions, samples and lengths: there one engine answers one question at a time,
8 samples in a batch, as nanochat does. On a GPU: d20 in bf16, 16 questions of 100 tokens, 16 samples of each, at most 256 new tokens.
One token in 128 ends an answer, so that answers differ in length as those of a finetuned model do. On a CPU: the recipe `tiny`, 8
questions, 8 samples. Needs only torch, numpy, safetensors, pydantic and this tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.cards import cards, device
from benchmarks.options import Options, Parser, positive_int
from benchmarks.result import Measurement, finish, show


@dataclass(frozen=True, kw_only=True)
class RlOptions(Options):
    recipe: str | None
    depth: int | None
    questions: int | None
    samples: int | None
    prompt: int | None
    new: int | None
    length: int
    at_a_time: int
    steps: int | None


def main(argv: list[str] | None = None) -> None:
    parser = Parser("rl", __doc__)
    parser.add_model()
    parser.add_argument("--questions", type=positive_int, metavar="N", help="of a step (16 on a GPU, 8 on a CPU)")
    parser.add_argument("--samples", type=positive_int, metavar="N", help="answers to each question (16 on a GPU, 8 on a CPU)")
    parser.add_argument("--prompt", type=positive_int, metavar="N", help="tokens of a question (100 on a GPU, 48 on a CPU)")
    parser.add_argument("--new", type=positive_int, metavar="N", help="most tokens of an answer (256 on a GPU, 64 on a CPU)")
    parser.add_argument("--length", type=positive_int, default=128, metavar="N", help="one token in N ends an answer (128)")
    parser.add_argument("--at-a-time", type=positive_int, default=8, metavar="N", help="samples in a batch, one by one (8)")
    parser.add_argument("--steps", type=positive_int, metavar="N", help="steps to measure (5 on a GPU, 2 on a CPU)")
    options = parser.parse(RlOptions, argv)

    from benchmarks.rl.measure import Bench  # imports torch, so only after the options have been checked

    gpu = bool(cards())
    bench = Bench(options, gpu=gpu)
    print(f"{bench.title} on {device()}", flush=True)
    rows: list[Measurement] = []
    for row in bench.rows():
        rows.append(row)
        show(row)
    finish("rl", device(), rows, options)


if __name__ == "__main__":
    main()

"""Plan a run without any service: `python -m nanochat.local.plan speedrun --gpus 8 --gpu H100`. Imports no torch.

Prints the JSON that `POST /v1/runs/plan` would return. Folders that the recipe names must be there, as for a run.
"""

from __future__ import annotations

import argparse
import math
import sys

from nanochat.config.recipe import RecipeError
from nanochat.contract.contract import Exit
from nanochat.local import options
from nanochat.planning import plan
from nanochat.planning.checked import checked


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nanochat plan", description=__doc__)
    options.add_recipe(parser)
    parser.add_argument("--gpus", type=int, default=1, help="number of GPUs, one process each (default 1)")
    parser.add_argument("--gpu", help="name of the GPU, such as H100")
    parser.add_argument("--gpu-memory", type=_positive, metavar="GIB", help="memory of one GPU")
    parser.add_argument("--peak-tflops", type=_positive, metavar="TFLOPS", help="dense bf16 peak of one GPU")
    parser.add_argument("--usd-per-hour", type=_price, metavar="USD", help="price of one GPU")
    args = parser.parse_args(argv)
    if args.gpus < 1:
        parser.error("--gpus must be at least 1")
    try:
        recipe, figures = checked(
            args.recipe,
            args.overrides,
            lambda recipe: plan.plan(
                recipe, args.gpus, args.gpu, args.gpu_memory, peak_tflops=args.peak_tflops, usd_per_hour=args.usd_per_hour
            ),
        )
    except RecipeError as err:
        for name, text in err.problems:
            sys.stderr.write(f"{name}: {text}\n")
        return Exit.BAD_INPUT
    sys.stdout.write(plan.run_plan(recipe, figures, args.gpu).model_dump_json() + "\n")
    return Exit.OK


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _price(text: str) -> float:
    return 0.0 if float(text) == 0 else _positive(text)


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m nanochat.grammar.trial`: compiles grammars to see whether they can be, under bounds on time and memory.

llguidance's own bounds do not hold while it compiles, and memory that runs out ends the process (decision 7). So a service tries
each new grammar in this process, which it starts again after its death. A line of standard input is a grammar as JSON; the line
of standard output for it is null, or what is wrong with the grammar, as a JSON string.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from pathlib import Path

from nanochat.grammar.grammar import Grammar, GrammarError
from nanochat.grammar.matcher import Grammars, Vocabulary

CPU_S = 1  # for one grammar, rounded up to whole seconds; 20,000 choices of a schema take 0.04 s
MEMORY = 256 << 20  # beyond what the process takes before the first grammar

# What a compiled grammar costs depends little on the vocabulary. This one is of bytes.
BYTES = Vocabulary([*(bytes([byte]) for byte in range(256)), b"<|end|>"], [256], [256], lambda text: list(text.encode()))


def main() -> None:
    grammars = Grammars(lambda: BYTES)
    grammars.matcher(Grammar.json_object())
    _limit_memory()
    for line in sys.stdin:
        _limit_time()
        error = None
        try:
            grammars.matcher(Grammar(**json.loads(line)))
        except GrammarError as err:
            error = str(err)
        sys.stdout.write(json.dumps(error) + "\n")
        sys.stdout.flush()


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):  # only Linux has /proc and enforces this limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + CPU_S, most))


if __name__ == "__main__":
    main()

"""On PYTHONPATH of the campaign's workers: `nanochat.stages.base_train` is the campaign's trainer, and torchrun starts fast."""

import importlib.util
import sys
from pathlib import Path

TRAINER = Path(__file__).parents[1] / "trainer.py"


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name == "nanochat.stages.base_train":
            return importlib.util.spec_from_file_location(name, TRAINER)
        return None


sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]
if "torch.distributed.run" in sys.orig_argv[:3]:
    import runpy

    runpy.run_path(str(TRAINER.with_name("lean_torch.py")))["install"]()

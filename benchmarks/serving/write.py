"""`python -m benchmarks.serving.write <json>`: write the checkpoint; prints the bounds of its ids as one line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.engine.subject import Subject
from benchmarks.process import job_of_argv
from benchmarks.serving.model import write

if __name__ == "__main__":
    job = job_of_argv()
    print(json.dumps({"ids": write(Path(job["folder"]), Subject(**job["subject"]))}))

"""Run a stage whose disk hangs or is full in the middle of writing one file: `python bad_disk.py <kind> --spec stage.json`.

The environment variable BAD_FILE is the path of that file below the folder of checkpoints. BAD_DISK is "full" or "still".
With "still", the write never ends, and the file MARK appears once it hangs; training continues. Every step is reported.
"""

import errno
import os
import threading
from pathlib import Path

from safetensors.torch import save, save_file

from nanochat import __main__
from nanochat.train import meter, snapshot

MARK = "still"


def write(tensors, path: Path) -> None:
    if str(path.relative_to(path.parent.parent)) != os.environ.get("BAD_FILE"):
        return save_file(tensors, path)
    content = save(tensors)
    path.write_bytes(content[: len(content) // 2])
    if os.environ["BAD_DISK"] == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (path.parents[2] / MARK).touch()
    return threading.Event().wait()


if __name__ == "__main__":
    snapshot.save_file, meter.QUIET_S = write, 0.0
    raise SystemExit(__main__.main())

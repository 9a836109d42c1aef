"""The folder of a program where the file system sets no bound on it: its size, and its removal however deep it is."""

from __future__ import annotations

import contextlib
import itertools
import os


def too_large(top: str, size: int, files: int) -> bool:
    """Whether the folder holds more than this many bytes or entries. Looks at no more entries than that."""
    folders, seen, total = [top], 0, 0
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > files:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:  # removed in the meantime
            continue
        except OSError as err:  # a path that is too long, or a folder that its maker has locked
            return err.errno is not None
    return total > size


def remove(top: str) -> None:
    """Remove a folder with all that is in it. Folders in folders move to the top first, so no path becomes long."""
    numbers = itertools.count()
    folders = [top]
    while folders:
        folder = folders[-1]
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)
        inner = False
        with os.scandir(folder) as entries:
            for entry in list(entries):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif folder == top:
                    folders.append(entry.path)
                    inner = True
                else:
                    with contextlib.suppress(OSError):
                        os.chmod(entry.path, 0o700)  # moving a folder changes its entry for "..", which needs the right
                    os.rename(entry.path, os.path.join(top, f".{next(numbers)}"))
        if not inner:
            os.rmdir(folder)
            folders.pop()

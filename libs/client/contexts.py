"""Contexts: the servers that the command line knows by name, in a file that only its user can read."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from client.errors import ClientError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Context(BaseModel):
    """One server. The key is in `key_file`, or here."""

    model_config = ConfigDict(extra="forbid")

    api_url: str
    inference_url: str | None = None
    ui_url: str | None = None
    key_file: str | None = None
    key: str | None = None


class Contexts(BaseModel):
    """All servers, and the name of the one that commands use unless they name another."""

    model_config = ConfigDict(extra="forbid")

    current: str | None = None
    contexts: dict[str, Context] = {}

    def named(self, name: str) -> Context:
        """Raises ClientError with the names that there are."""
        if name not in self.contexts:
            known = f"there are: {', '.join(sorted(self.contexts))}" if self.contexts else "there is none yet"
            raise ClientError(f"no context {name!r}; {known}. Make one: nanochat context add {name} --api URL --key-file FILE")
        return self.contexts[name]


def file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(folder) / "nanochat" / "contexts.json"


def load() -> Contexts:
    """Raises ClientError if the file is damaged."""
    path = file()
    try:
        return Contexts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Contexts()
    except OSError as err:
        raise ClientError(f"{path} cannot be read: {err.strerror}") from err
    except ValidationError as err:  # its own text would quote the file, which may hold keys
        first = err.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ClientError(f"{path} cannot be read; mend it or delete it: {where}: {first['msg']}") from err


def save(contexts: Contexts) -> None:
    """Replace the file as a whole, readable by its user alone. Raises ClientError if it cannot be written."""
    path = file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")  # made with mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(contexts.model_dump(exclude_none=True), out, indent=1)
        Path(temporary).replace(path)
    except OSError as err:
        raise ClientError(f"{path} cannot be written: {err.strerror}") from err

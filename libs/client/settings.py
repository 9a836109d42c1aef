"""Addresses and API key of the platform: from the environment, or from the files that `nanochat up` writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import ClientError

API_URL = "http://127.0.0.1:8000"
INFERENCE_URL = "http://127.0.0.1:8001"


@dataclass(frozen=True, slots=True)
class Settings:
    api_url: str
    inference_url: str
    ui_url: str | None
    api_key: str | None
    home: Path

    def require_key(self) -> str:
        """Raises ClientError if there is no key. The message says where keys are looked for."""
        if self.api_key is None:
            raise ClientError(
                f"no API key: set NANOCHAT_API_KEY or NANOCHAT_API_KEY_FILE, or start the platform with `nanochat up`,"
                f" which writes {self.home / 'keys' / 'admin.key'}"
            )
        return self.api_key


def discover() -> Settings:
    """Look for each value in three places. The first place that has it wins:

    1. the variables NANOCHAT_API_URL, NANOCHAT_INFERENCE_URL, NANOCHAT_UI_URL, NANOCHAT_API_KEY and NANOCHAT_API_KEY_FILE
    2. `stack.json` and `keys/admin.key` in NANOCHAT_HOME (default `./.nanochat`)
    3. the default ports on loopback

    Raises ClientError if `stack.json` or the file in NANOCHAT_API_KEY_FILE cannot be read.
    """
    env, home = os.environ, Path(os.environ.get("NANOCHAT_HOME") or ".nanochat")
    stack = _stack(home / "stack.json")
    return Settings(
        api_url=(env.get("NANOCHAT_API_URL") or stack.get("api_url") or API_URL).rstrip("/"),
        inference_url=(env.get("NANOCHAT_INFERENCE_URL") or stack.get("inference_url") or INFERENCE_URL)
        .rstrip("/")
        .removesuffix("/v1"),  # OpenAI's clients take the address with it
        ui_url=env.get("NANOCHAT_UI_URL") or stack.get("ui_url"),
        api_key=_key(env.get("NANOCHAT_API_KEY"), env.get("NANOCHAT_API_KEY_FILE"), stack.get("key_file"), home),
        home=home,
    )


def _stack(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as err:
        raise ClientError(f"{path} cannot be read ({err}); delete it and start the platform again") from err
    if not isinstance(table, dict):
        raise ClientError(f"{path} is not a JSON object; delete it and start the platform again")
    return table


def _key(key: str | None, named_file: str | None, stack_file: str | None, home: Path) -> str | None:
    if key:
        return key.strip()
    if named_file:
        try:
            return Path(named_file).read_text(encoding="utf-8").strip()
        except OSError as err:
            raise ClientError(f"NANOCHAT_API_KEY_FILE {named_file} cannot be read: {err.strerror}") from err
    for path in (Path(stack_file) if stack_file else None, home / "keys" / "admin.key"):
        if path is not None and path.is_file() and os.access(path, os.R_OK):
            return path.read_text(encoding="utf-8").strip() or None
    return None

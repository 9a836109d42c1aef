"""Addresses and API key of the platform: from the environment, a context, or the files that `nanochat up` writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import contexts
from client.contexts import Context
from client.errors import ClientError, NoKey

API_URL = "http://127.0.0.1:8000"
INFERENCE_URL = "http://127.0.0.1:8001"


@dataclass(frozen=True, slots=True)
class Settings:
    api_url: str
    inference_url: str
    ui_url: str | None
    api_key: str | None
    home: Path
    context: str | None = None  # its name, if the addresses are those of a context

    @property
    def key_from(self) -> str:
        """Where the key comes from, for people."""
        if self.context is not None:
            return f"the context {self.context!r}"
        named = next((name for name in ("NANOCHAT_API_KEY", "NANOCHAT_API_KEY_FILE") if os.environ.get(name)), None)
        return named or f"the platform in {self.home}"

    def require_inference(self) -> str:
        """The address of the inference service. Raises ClientError if the context has none."""
        if not self.inference_url:
            raise ClientError(
                f"the context {self.context!r} has no inference address: nanochat context add {self.context} … --inference URL"
            )
        return self.inference_url

    def require_key(self) -> str:
        """Raises ClientError if there is no key. The message says where keys are looked for."""
        if self.api_key is None and self.context is not None:
            raise NoKey(f"the context {self.context!r} has no API key: nanochat context add {self.context} … --key-file FILE")
        if self.api_key is None:
            raise NoKey(
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
    env, home = os.environ, _home()
    stack = _stack(home / "stack.json")
    return Settings(
        api_url=(env.get("NANOCHAT_API_URL") or stack.get("api_url") or API_URL).rstrip("/"),
        inference_url=_bare(env.get("NANOCHAT_INFERENCE_URL") or stack.get("inference_url") or INFERENCE_URL),
        ui_url=env.get("NANOCHAT_UI_URL") or stack.get("ui_url"),
        api_key=_key(env.get("NANOCHAT_API_KEY"), env.get("NANOCHAT_API_KEY_FILE"), stack.get("key_file"), home),
        home=home,
    )


def chosen(name: str | None = None) -> Settings:
    """The settings of the command line. The first that is given wins: the context `name`; the environment, if it has an address;
    the context in NANOCHAT_CONTEXT; the one of `nanochat context use`; what `discover` finds.

    A context's key goes to its own servers only, and no other key goes there. Raises ClientError.
    """
    addressed = any(os.environ.get(f"NANOCHAT_{what}_URL") for what in ("API", "INFERENCE"))
    if not name and addressed:
        return discover()
    known = contexts.load()
    name = name or os.environ.get("NANOCHAT_CONTEXT") or known.current
    return _of_context(name, known.named(name)) if name else discover()


def _of_context(name: str, context: Context) -> Settings:
    """Raises ClientError if its key file cannot be read."""
    return Settings(
        api_url=context.api_url.rstrip("/"),
        inference_url=_bare(context.inference_url or ""),
        ui_url=context.ui_url,
        api_key=context.key
        or (_read_key(context.key_file, f"the key file of the context {name!r},") if context.key_file else None),
        home=_home(),
        context=name,
    )


def _home() -> Path:
    return Path(os.environ.get("NANOCHAT_HOME") or ".nanochat")


def _bare(url: str) -> str:
    """Without the `/v1` that OpenAI's clients want at the end."""
    return url.rstrip("/").removesuffix("/v1")


def _stack(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NotADirectoryError as err:
        raise ClientError(f"{path.parent} is not a folder; set NANOCHAT_HOME to one") from err
    except (OSError, ValueError, RecursionError) as err:
        raise ClientError(f"{path} cannot be read ({err}); delete it and start the platform again") from err
    if not isinstance(table, dict):
        raise ClientError(f"{path} is not a JSON object; delete it and start the platform again")
    return table


def _key(key: str | None, named_file: str | None, stack_file: str | None, home: Path) -> str | None:
    if key:
        return key.strip()
    if named_file:
        return _read_key(named_file, "NANOCHAT_API_KEY_FILE")
    for path in (Path(stack_file) if stack_file else None, home / "keys" / "admin.key"):
        if path is not None and path.is_file() and os.access(path, os.R_OK):
            return path.read_text(encoding="utf-8").strip() or None
    return None


def _read_key(path: str, what: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else "it is not text"
        raise NoKey(f"{what} {path} cannot be read: {reason}") from err

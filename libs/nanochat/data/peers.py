"""Load the tokenizers of GPT-2 and GPT-4 for comparison, if their files are on this machine. Never uses the network."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import tiktoken

_HOST = "https://openaipublic.blob.core.windows.net"
# The files that tiktoken reads for each encoding, by address, with their SHA-256.
_FILES = {
    "gpt2": {
        f"{_HOST}/gpt-2/encodings/main/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        f"{_HOST}/gpt-2/encodings/main/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    },
    "cl100k_base": {
        f"{_HOST}/encodings/cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    },
}
NAMES = tuple(_FILES)


def load(name: str) -> tiktoken.Encoding | str:
    """Return the encoding, or the reason why it is not available.

    tiktoken would download a file that is missing or damaged, so both are checked before it is called.
    """
    cache = _cache_dir()
    for url, digest in _FILES[name].items():
        path = cache / hashlib.sha1(url.encode()).hexdigest()
        if not path.is_file():
            return f"not available: {url.rpartition('/')[2]} is not in {cache} (set TIKTOKEN_CACHE_DIR to its folder)"
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            return f"not available: {path} is damaged"
    return tiktoken.get_encoding(name)


def _cache_dir() -> Path:
    """The folder in which tiktoken looks for its files, by the same rules as tiktoken."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable])
    return Path(tempfile.gettempdir(), "data-gym-cache")

"""A model that left by `nanochat export` and came back by `nanochat import` is served, and answers as before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nanochat.contract.contract import Artifact
from services.inference.source import fixed
from tests.inference.heart import SELF, SUM, SUMMED, WHO
from tests.inference.server import serving


def nanochat(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from client.cli import main; main()", *map(str, arguments)],
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_imported_folder_answers(model_artifact: Artifact, tokenizer_artifact: Artifact, tmp_path: Path) -> None:
    away, back = tmp_path / "away", tmp_path / "back"
    said = nanochat("export", "--to", "hf", "--model", model_artifact.path, "--tokenizer", tokenizer_artifact.path, away)
    assert str(away) in said
    said = nanochat("import", away, back)
    assert f"--model {back}/model --tokenizer {back}/tokenizer" in said
    with serving(fixed(back / "model", back / "tokenizer")) as server:
        server.wait_until_ready()
        for question, answer in ((WHO, SELF), (SUM, SUMMED)):
            body = {"messages": [{"role": "user", "content": question}], "temperature": 0}
            choice = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]
            assert choice["message"]["content"] == answer

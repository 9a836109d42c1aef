"""Rules for the source tree: file sizes, names, and what may be tracked."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT = 500


def tracked(*patterns: str) -> list[str]:
    out = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if (ROOT / line).is_file()]


@pytest.fixture(scope="module", autouse=True)
def _in_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")


def test_no_source_file_is_longer_than_500_lines() -> None:
    sources = tracked("*.py", "*.rs", "*.pyi", "*.sh")
    assert sources
    long = {f: n for f in sources if (n := len((ROOT / f).read_text(encoding="utf-8").splitlines())) > LIMIT}
    assert not long


def test_most_source_files_are_short() -> None:
    sizes = [len((ROOT / f).read_text(encoding="utf-8").splitlines()) for f in tracked("libs/**/*.py", "services/**/*.py")]
    assert sum(n <= 300 for n in sizes) >= 0.9 * len(sizes)


def test_no_module_is_named_utils_or_the_like() -> None:
    assert not [f for f in tracked("*.py") if Path(f).stem in {"utils", "util", "helpers", "misc", "common"}]


def test_no_lock_file_with_registry_addresses_is_tracked() -> None:
    names = {Path(f).name for f in tracked()}
    assert not names & {"uv.lock", "Cargo.lock", "package-lock.json", "poetry.lock"}
    assert "://" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_no_pickle_is_read_or_written() -> None:
    for f in tracked("libs/**/*.py", "services/**/*.py"):
        text = (ROOT / f).read_text(encoding="utf-8")
        assert "import pickle" not in text, f
        assert "torch.load(" not in text, f


def test_text_files_keep_to_the_editorconfig() -> None:
    for f in tracked():
        data = (ROOT / f).read_bytes()
        if not data or b"\0" in data:
            continue
        assert data.endswith(b"\n"), f"{f}: no newline at the end"
        assert b"\r" not in data, f"{f}: carriage return"
        assert b" \n" not in data, f"{f}: white space at the end of a line"
        assert b"\t" not in data or Path(f).name == "Makefile", f"{f}: tab"

"""The amount of code: the figures that nanochat's report calls bloat."""

from pathlib import Path

from nanochat.report import code


def test_a_checkout_is_counted_without_its_tests(tmp_path: Path) -> None:
    for name, text in {
        "pyproject.toml": "",
        "requirements.lock": "a==1\n    --hash=sha256:0\nb==2 ; python_version > '3'\n",
        "libs/nanochat/a.py": "x = 1\n",
        "libs/nanochat/data.bin": "x" * 1000,
        "services/b.html": "<p>\né\n",
        "rustbpe/target/made.rs": "x" * 1000,
        "tests/test_a.py": "x" * 1000,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = code.measured(tmp_path / "libs" / "nanochat")
    assert (found.files, found.lines, found.characters, found.tokens) == (2, 3, 12, 3)
    assert (found.dependencies, found.of) == (2, "libs, services, rustbpe")


def test_a_package_alone_is_counted_without_the_rest_of_the_environment(tmp_path: Path) -> None:
    for name in ("nanochat/a.py", "other/b.py"):
        (tmp_path / "site-packages" / name).parent.mkdir(parents=True)
        (tmp_path / "site-packages" / name).write_text("x = 1\n", encoding="utf-8")
    found = code.measured(tmp_path / "site-packages" / "nanochat")
    assert (found.files, found.dependencies, found.of) == (1, None, "nanochat")

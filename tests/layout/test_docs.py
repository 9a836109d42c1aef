"""The documents agree with the tree: links lead to something, rooms and packages exist, switches have the documented values."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from client import cli
from nanochat.config import recipe

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "k8s").glob("*.md"), *(ROOT / ".github").glob("*.md")]
)
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes for a page's headings."""
    titles = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.casefold()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no such heading"


def test_every_page_can_be_reached_from_the_readme() -> None:
    waiting, seen = [ROOT / "README.md"], set()
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.suffix == ".md" and target.is_file():
                waiting.append(target)
            elif target.is_dir() and "://" not in link:
                waiting += target.glob("*.md")
    unreached = {p for p in DOCUMENTS if ".github" not in p.parts} - seen
    assert not {str(p.relative_to(ROOT)) for p in unreached}


def test_the_readme_names_every_command() -> None:
    row = re.search(r"`nanochat (up · [^`]*)`", text("README.md"))
    assert row
    assert set(row[1].split(" · ")) == set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


# -- architecture --


def rooms(folder: Path) -> set[str]:
    return {p.parent.name for p in folder.glob("*/__init__.py")}


def test_the_architecture_shows_the_rooms_of_nanochat_that_exist() -> None:
    tree = re.search(r"^```\n(config/.*?)^```", text("docs/architecture.md"), re.M | re.S)
    assert tree
    library = ROOT / "libs" / "nanochat"
    assert set(re.findall(r"(?:^| )([a-z_]+)/(?= )", tree[1], re.M)) == rooms(library)
    for room, modules in re.findall(r"^([a-z]+)/ +(\S+(?: \S+)*)", tree[1], re.M):
        for module in re.findall(r"(?:^| · )([a-z_]+)(?= · |$)", modules):
            assert (library / room / f"{module}.py").is_file(), f"{room}/ has no {module}.py"
    assert set(re.findall(r"\b([a-z_]+\.py)\b", tree[1])) >= {p.name for p in library.glob("*.py") if p.name != "__init__.py"}


def test_the_architecture_lists_the_packages_that_exist() -> None:
    listed = set(re.findall(r"^\| `((?:libs|services)/[a-z_]+)/` \|", text("docs/architecture.md"), re.M))
    assert listed == {f"libs/{name}" for name in rooms(ROOT / "libs")} | {
        f"services/{name}" for name in rooms(ROOT / "services")
    }


def test_the_glossary_is_short_and_linked() -> None:
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", text("docs/glossary.md"), re.M)
    assert 10 <= len(terms) <= 20
    assert len(set(terms)) == len(terms)
    for page in ("README.md", "docs/architecture.md"):
        assert "glossary.md)" in text(page)


# -- API --


def test_every_request_of_the_control_api_is_in_its_table() -> None:
    table = re.sub(r"\{\w+\}", "{}", text("docs/api.md"))
    for path in json.loads(text("services/api/openapi.json"))["paths"]:
        bare = re.sub(r"\{\w+\}", "{}", path)
        assert f"`{bare}`" in table or f" {bare}`" in table, f"{path} is not in docs/api.md"


# -- recipes --


def leaves(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def switches() -> dict[str, list[str]]:
    """Each row of the tables of switches: the name, then the other cells."""
    rows = re.findall(r"^\| `((?:model|tokenizer|base)\.[a-z0-9_.]+)` \|(.*)\|$", text("docs/recipes.md"), re.M)
    return {name: [cell.strip() for cell in re.split(r"(?<!\\)\|", cells)] for name, cells in rows}


def test_every_switch_of_modern_is_documented_with_both_values() -> None:
    modern = {
        name: value
        for name, value in leaves(recipe.load("modern")).items()
        if name.startswith(("model.", "tokenizer.", "base."))
    }
    defaults = leaves(recipe.Recipe().model_dump(mode="json"))
    rows = switches()
    assert modern.keys() - {"model.depth"} == {name for name, cells in rows.items() if len(cells) == 4}
    for name, value in modern.items():
        if name in rows:
            _, default, ours, _ = rows[name]
            assert json.loads(default.strip("`")) == defaults[name], name
            assert json.loads(ours.strip("`")) == value, name


def test_switches_that_are_off_everywhere_are_documented_with_their_default() -> None:
    defaults = leaves(recipe.Recipe().model_dump(mode="json"))
    off = {name: cells for name, cells in switches().items() if len(cells) == 3}
    assert off
    for name, (_, default, _) in off.items():
        assert json.loads(default.strip("`")) == defaults[name], name


def test_every_shipped_recipe_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `([a-z0-9]+)` \| d\d+", text("docs/recipes.md"), re.M)) == set(recipe.names())

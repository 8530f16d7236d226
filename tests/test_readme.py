"""What the READMEs and the pages of ``docs/`` show is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mapsto.mapping import Chain
from mapsto.recipe.reader import parse_recipe

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.zh-CN.md"]
MADE = ("docs/_build/", "docs/reference/")
"""What `make docs` writes."""
_PATHS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
SITE = [path for path in _PATHS if not path.startswith(MADE)]
"""The pages of the site that are written by hand."""
PAGES = [*READMES, "CONTRIBUTING.md", "SECURITY.md", "runtime/README.md", *SITE]


def block(file: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("file", [*READMES, "docs/recipes.md"])
def test_the_recipe_is_valid(file: str) -> None:
    assert isinstance(parse_recipe(block(file, "yaml")).steps, Chain)


def test_each_recipe_of_the_page_on_fine_tuning_is_valid() -> None:
    text = (ROOT / "docs" / "fine_tune.md").read_text(encoding="utf-8")
    recipes = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert [len(parse_recipe(recipe).steps.steps) for recipe in recipes] == [2, 3, 4]


@pytest.mark.parametrize(
    ("file", "steps"), [("docs/text_domain.md", [4]), ("docs/augment.md", [2, 4, 2]), ("docs/transfer.md", [4, 3])]
)
def test_each_recipe_of_a_page_is_valid(file: str, steps: list[int]) -> None:
    recipes = re.findall(r"```yaml\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)
    assert [len(parse_recipe(recipe).steps.steps) for recipe in recipes] == steps


def test_the_python_chain_composes_and_equals_the_recipe() -> None:
    code = block("docs/recipes.md", "python").partition("run = execute")[0]
    names: dict[str, object] = {}
    exec(compile(code, "docs/recipes.md", "exec"), names)
    chain = names["small"]
    assert isinstance(chain, Chain)
    written = parse_recipe(block("docs/recipes.md", "yaml")).steps
    assert isinstance(written, Chain)
    assert [step.name for step in chain.steps if step.name != "observe"] == [step.name for step in written.steps]


def test_tables_are_made_from_the_result_files() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_result_file_has_a_table() -> None:
    tables = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "benchmarks").glob("*.md"))
    results = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert {name for name in results if f"<!-- table {name} -->" not in tables} == set()


@pytest.mark.parametrize("file", READMES)
def test_a_readme_is_short_and_installs_first(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert len(text) <= 6000
    assert re.findall(r"```sh\n(\w+ \w+)", text)[0] == "pip install"
    assert len(re.findall(r"^\|---", text, re.MULTILINE)) == 1, "one table"


@pytest.mark.parametrize("file", PAGES)
def test_links_lead_to_files(file: str) -> None:
    page = ROOT / file
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [
        to
        for to in targets
        if "://" not in to
        and not (page.parent / to).exists()
        and not any((page.parent / to).resolve().is_relative_to((ROOT / made).resolve()) for made in MADE)
    ]
    assert missing == []


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs" / "images" / "demo.svg").read_text(encoding="utf-8").startswith("<svg")

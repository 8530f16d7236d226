"""What the READMEs show is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mapsto.mapping import Chain
from mapsto.spec import parse_recipe

ROOT = Path(__file__).parents[1]


def block(file: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("file", ["README.md", "README.zh-CN.md"])
def test_the_recipe_is_valid(file: str) -> None:
    assert isinstance(parse_recipe(block(file, "yaml")).steps, Chain)


def test_the_python_chain_composes_and_equals_the_recipe() -> None:
    code = block("README.md", "python").partition("run = execute")[0]
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    chain = names["small"]
    assert isinstance(chain, Chain)
    written = parse_recipe(block("README.md", "yaml")).steps
    assert isinstance(written, Chain)
    assert [step.name for step in chain.steps if step.name != "observe"] == [step.name for step in written.steps]


def test_tables_are_made_from_the_result_files() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs" / "images" / "demo.svg").read_text(encoding="utf-8").startswith("<svg")

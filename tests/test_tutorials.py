"""Each tutorial runs from top to bottom, and its notebook is the one its source gives."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from mapsto.data.io.download import locate
from mapsto.errors import DataError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
_spec = importlib.util.spec_from_file_location("notebooks", ROOT / "scripts" / "notebooks.py")
assert _spec is not None
assert _spec.loader is not None
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)
TRANSLATED = [source for source in SOURCES if source.stem.endswith("_zh_CN")]


def test_notebooks_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "notebooks.py"), "--check"], check=False)
    assert done.returncode == 0, "run scripts/notebooks.py"


def test_the_path_names_each_tutorial_once_and_counts() -> None:
    """A translation stands with its original."""
    text = (ROOT / "docs" / "tutorials" / "README.md").read_text(encoding="utf-8")
    steps = re.findall(r"^(\d+)\. (.*(?:\n {3,4}\S.*)*)", text, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    linked = [re.findall(r"\]\((\w+)\.ipynb\)", words) for _, words in steps]
    assert sorted(name for names in linked for name in names) == [source.stem for source in SOURCES]
    for original, *others in linked:
        assert others == [f"{original}_zh_CN"] * len(others)


def test_the_first_three_steps_are_there_in_chinese() -> None:
    text = (ROOT / "docs" / "tutorials" / "README.md").read_text(encoding="utf-8")
    first = re.findall(r"^[123]\. \[[^]]+\]\((\w+)\.ipynb\)", text, re.MULTILINE)
    assert len(first) == 3
    assert {f"{name}_zh_CN" for name in first} <= {source.stem for source in TRANSLATED}


@pytest.mark.parametrize("source", TRANSLATED, ids=lambda path: path.stem)
def test_a_translated_tutorial_has_the_cells_of_its_original(source: Path) -> None:
    """Code and formulas are the same; each cell of text is there, in Chinese."""
    parts = notebooks.cells(source.read_text(encoding="utf-8"))
    originals = notebooks.cells(source.with_stem(source.stem.removesuffix("_zh_CN")).read_text(encoding="utf-8"))
    assert [kind for kind, _ in parts] == [kind for kind, _ in originals]
    for (kind, text), (_, original) in zip(parts, originals, strict=True):
        if kind == "code":
            assert text == original
        else:
            assert re.findall(r"\$\$.*?\$\$", text, re.DOTALL) == re.findall(r"\$\$.*?\$\$", original, re.DOTALL)
            assert len(re.findall(r"[\u4e00-\u9fff]", text)) > 30


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("source", [each for each in SOURCES if each not in TRANSLATED], ids=lambda path: path.stem)
def test_tutorial(source: Path) -> None:
    text = source.read_text(encoding="utf-8")
    if "import lightning" in text:
        pytest.importorskip("lightning", reason="needs the extra lightning")
    if "datasets.cifar10" in text:
        try:
            locate("cifar-10-batches-bin", what="CIFAR-10")
        except DataError as error:
            pytest.skip(str(error))
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with notebooks.module_of(source) as names:
        exec(compile(text, str(source), "exec", dont_inherit=True), names)
    assert plt.get_fignums()
    plt.close("all")

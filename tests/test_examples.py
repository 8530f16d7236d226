"""The code of the worked examples' pages runs as it stands, and what it is to show is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mapsto.context import Numerics, SilentContext

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code blocks of a page leave behind, run one after another."""
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)```", (EXAMPLES / f"{page}.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    left: dict[str, Any] = {}
    exec(compile("\n".join(blocks), page, "exec"), left)
    return left


@pytest.mark.slow
def test_colour_fools_the_mean_loss_and_not_an_invariant_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run("features_that_hold_everywhere", tmp_path, monkeypatch)["found"]
    assert found["none"] < 40
    assert found["vrex"] > found["none"] + 15


@pytest.mark.slow
def test_a_tree_of_classes_gives_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mapsto import datasets, evaluate

    network = run("a_tree_of_classes", tmp_path, monkeypatch)["network"]
    ctx = SilentContext(seed=0, numerics=Numerics(threads=1))
    report = ctx.apply(evaluate.accuracy(data=datasets.digits(split="test", size=8), pictures=0), network)
    assert report.metrics["accuracy"].value > 50

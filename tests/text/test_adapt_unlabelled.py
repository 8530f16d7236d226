"""``mapsto adapt`` with unlabelled texts: the encoder is trained further as time allows, and goes back where examples are not sure."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

from mapsto import datasets
from mapsto.cli.adapt.pretraining import with_pretraining
from mapsto.cli.adapt.texts import examples_of, for_encoder
from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mappings.networks.hf_text import HfText
from mapsto.recipe.reader import parse_recipe
from mapsto.run.executor import execute
from mapsto.search.adapt import Examples, adaptation_recipe
from mapsto.store import Store
from tests.text.tiny_encoder import WORDS, tiny_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def files(place: Path, texts: int, examples: int = 4) -> tuple[Path, Path]:
    """A table of labelled texts, and one text a line without labels."""
    rng = np.random.default_rng(0)
    words = [word for word in WORDS if word.isalpha()]
    rows = [(f"{mine} {' '.join(rng.choice(words, 4))}", mine) for mine in ("card", "fruit") for _ in range(examples)]
    with (place / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "intent"), *rows])
    (place / "pool.txt").write_text("\n".join(" ".join(rng.choice(words, 6)) for _ in range(texts)))
    return place / "a.csv", place / "pool.txt"


def prepared(network: Network, table: Path, pool: Path, minutes: float, ctx: Context) -> Examples:
    examples, data = examples_of(table, ["text"], "intent", pool, class_weights="none")
    examples = for_encoder(examples, network, 1)
    return with_pretraining(examples, network, ctx.dataset(data, for_=network.signature.preprocessing), minutes, ctx)


def test_it_is_tried_where_there_are_texts_time_and_examples_to_judge_by(folder: Path, tmp_path: Path) -> None:
    network = HfText(folder=str(folder), length=12)()
    for texts, examples, minutes, said in (
        (900, 4, 10, "trained further on the unlabelled texts by train.tsdae"),
        (20, 4, 10, "20 are too few"),
        (900, 4, 1e-5, "to try it: --minutes 1"),
        (900, 1, 10, "with one example of each class nothing says"),
    ):
        ctx = Context()
        found = prepared(network, *files(tmp_path, texts, examples), minutes, ctx)
        assert (found.pretraining is not None) == (said.startswith("trained"))
        assert said in "\n".join(ctx.notes)
    silent = Context()
    assert prepared(network, *files(tmp_path, 900), 0, silent).pretraining is None
    assert silent.notes == []


@pytest.mark.slow
def test_its_recipe_runs_and_the_report_says_which_encoder_was_taken(folder: Path, tmp_path: Path) -> None:
    network = HfText(folder=str(folder), length=12)()
    examples = prepared(network, *files(tmp_path, 900), 10, Context())
    step = {"train.tsdae": {**(examples.pretraining or {})["train.tsdae"], "steps": 3}}
    node = {"networks.hf_text": {"folder": str(folder), "length": 12}}
    text = adaptation_recipe(network=node, examples=dataclasses.replace(examples, pretraining=step), title="texts")
    tree = yaml.safe_load(text)
    names = [next(iter(each)) for each in tree["steps"]]
    assert names == ["networks.hf_text", "train.tsdae", "choose.better", "adapt.best", "export.onnx"]
    without_export = yaml.safe_dump({**tree, "steps": tree["steps"][:-1]})
    result = execute(parse_recipe(without_export), store=Store(tmp_path / "store"), seed=0)
    chosen = next(step for step in result.steps if step.label == "encoder")
    assert any("original" in note for note in chosen.notes)
    assert datasets.text(file=str(tmp_path / "pool.txt")).open().inputs.shape[0] > 800

"""The names of classes as examples: how they are read, and when they are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import adapt, datasets, networks
from mapsto.context import SilentContext
from mapsto.kinds import Network
from mapsto.nn.adapt.label_names import NamedClasses, readable, why_not
from tests.text.tiny_encoder import tiny_encoder

NO_IDS = np.zeros((0, 1), np.int64)
NAMES = ("lost_card", "eat_fruit", "red_apple")
TEXTS = {
    "lost_card": ("my card is lost", "I lost the bank card", "where is my lost card", "help, card lost"),
    "eat_fruit": ("I eat a fruit", "please eat the fruit", "eat a pear", "eats fruit"),
    "red_apple": ("the apple is red", "a red apple", "red, red apple", "is it a red apple?"),
}


def table(folder: Path, names: dict[str, str] | None = None, shots: int = 4) -> Path:
    rows = [(text, (names or {}).get(name, name)) for name, texts in TEXTS.items() for text in texts[:shots]]
    file = folder / "texts.csv"
    file.write_text("text,intent\n" + "".join(f'"{text}",{name}\n' for text, name in rows))
    return file


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return networks.hf_text(folder=str(tiny_encoder(tmp_path_factory.mktemp("tiny"))), length=16)(seed=0)


def best(encoder: Network, file: Path, **fields: Any) -> tuple[Network, SilentContext]:
    ctx = SilentContext(seed=0)
    return ctx.apply(adapt.best(data=datasets.text(file=str(file), target="intent"), **fields), encoder), ctx


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cardArrival", "card Arrival"),
        ("PIN_blocked", "PIN blocked"),
        ("404", None),
        ("__", None),
        ("été", "été"),
        ("oos-2b", "oos 2b"),
    ],
)
def test_a_name_is_made_readable(name: str, text: str | None) -> None:
    assert readable(name) == text


def test_of_texts_logistic_regression_comes_first_and_names_are_examples(encoder: Network, tmp_path: Path) -> None:
    found, ctx = best(encoder, table(tmp_path), label_names="use")
    assert [row[0] for row in ctx.attached["ways"].rows] == ["logistic", "ridge without the root", "centroid"]
    assert any("'eat fruit', 'lost card', 'red apple'" in note for note in ctx.notes)
    without, quiet = best(encoder, table(tmp_path), label_names="leave_out")
    assert not any("name of each class" in note for note in quiet.notes)
    assert not (found.tensors["classifier.weight"] == without.tensors["classifier.weight"]).all()
    assert found.signature.classes == tuple(sorted(NAMES))


@pytest.mark.parametrize("renamed", [{"lost_card": "1", "eat_fruit": "22", "red_apple": "3"}])
def test_names_of_digits_are_not_used(encoder: Network, tmp_path: Path, renamed: dict[str, str]) -> None:
    _, ctx = best(encoder, table(tmp_path, renamed), label_names="use")
    assert not any("name of each class" in note for note in ctx.notes)


def test_with_one_example_a_class_names_have_to_be_better_than_chance() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(20, 30)), np.arange(20)
    good = NamedClasses(rows + 0.3 * rng.normal(size=rows.shape), labels, (), NO_IDS)
    assert why_not(good, rows, labels, 20, rng) == ""
    assert "hardly more than by chance" in why_not(good._replace(labels=np.roll(labels, 1)), rows, labels, 20, rng)


def test_names_that_mislead_are_left_out() -> None:
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(8, 30)), np.arange(24) % 8
    rows = centres[labels] + 0.8 * rng.normal(size=(24, 30))
    names = NamedClasses(centres, np.arange(8), (), NO_IDS)
    assert why_not(names, rows, labels, 8, rng) == ""
    assert "points fewer" in why_not(names._replace(labels=np.roll(names.labels, 1)), rows, labels, 8, rng)


def test_ways_can_be_named(encoder: Network, tmp_path: Path) -> None:
    _, ctx = best(encoder, table(tmp_path), ways=("plain_ridge", "ridge"))
    assert [row[0] for row in ctx.attached["ways"].rows] == ["ridge without the root", "ridge"]


def test_one_text_of_each_class_and_classes_that_count_alike(encoder: Network, tmp_path: Path) -> None:
    _, ctx = best(encoder, table(tmp_path, shots=1), label_names="use")
    assert {row[1] for row in ctx.attached["ways"].rows} == {""}
    one, _ = best(encoder, table(tmp_path), class_weights="balanced")
    assert one.signature.classes is not None

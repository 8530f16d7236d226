"""Several labels a text, and numbers: from a table to a package by ``mapsto adapt``, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mapsto import datasets
from mapsto.errors import DataError
from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.text.tiny_encoder import tiny_encoder

ROWS = [
    ("where is my card?", "card", "0", "1", "1.5"),
    ("my card is lost", "card; lost", "1", "1", "2.5"),
    ("please help, my card is lost", "lost; card", "1", "1", "2.5"),
    ("I like the red apple", "fruit", "0", "0", "4.5"),
    ("eat a green pear", "fruit", "0", "0", "4.0"),
    ("the pear is lost", "fruit;lost", "1", "0", "3.5"),
    ("where is the card?", "card", "0", "1", "1.5"),
    ("a blue apple", "fruit", "0", "0", "4.5"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "tags", "lost", "card", "stars"), *ROWS])
    return path


def adapt(*arguments: object) -> dict[str, Any]:
    return json.loads(mapsto("adapt", *arguments, "--json", code=0).out)


@pytest.mark.slow
def test_labels_of_one_column_become_a_package(folder: Path, file: Path, tmp_path: Path) -> None:
    found = adapt(folder, file, "--text", "text", "--target", "tags", "--task", "labels", "--out", tmp_path)
    assert found["classes"] == {"card": 4, "fruit": 4, "lost": 3}
    assert [row["label"] for row in found["per_label"]] == ["card", "fruit", "lost"]
    assert 0 <= found["exact_percent"] <= 100
    package = Predictor(tmp_path / "package")
    assert package.signature.answers == "labels"
    answers = package.predict([text for text, *_ in ROWS])
    right = [
        set(answer.label.split(", ")) == set(row[1].replace(" ", "").split(";"))
        for answer, row in zip(answers, ROWS, strict=True)
    ]
    assert sum(right) >= 6


@pytest.mark.slow
def test_columns_of_0_and_1_and_numbers(folder: Path, file: Path, tmp_path: Path) -> None:
    samples = datasets.text(file=str(file), target=("lost", "card"), task="labels").open()
    assert samples.classes == ("lost", "card")
    assert samples.labels.sum(0).tolist() == [3, 4]
    values = adapt(folder, file, "--text", "text", "--target", "stars", "--out", tmp_path / "values")
    assert values["task"] == "values"
    assert values["rmse"] < values["rmse_of_mean"]
    answers = Predictor(tmp_path / "values" / "package").predict(["my card is lost", "a red apple"])
    assert answers[0].scores["stars"] < answers[1].scores["stars"]


def test_lists_in_json_lines_are_labels(tmp_path: Path) -> None:
    lines = [
        {"text": "a red apple", "tags": ["red", "fruit"]},
        {"text": "blue", "tags": ["blue"]},
        {"text": "it", "tags": []},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = datasets.text(file=str(path), target="tags", task="labels").open()
    assert samples.classes == ("blue", "fruit", "red")
    assert samples.labels.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]
    path.write_text(path.read_text() + '{"text": "that", "tags": [1]}\n')
    with pytest.raises(DataError, match=r"row 4: 'tags' holds \[1\], no list of words"):
        datasets.text(file=str(path), target="tags", task="labels").open()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "lost", "--target", "card"), "2 columns are to be predicted"),
        (("--target", "tags", "--task", "labels", "--class-weights", "balanced"), "labels are predicted here"),
        (("--target", "tags", "--task", "values"), "holds words, not numbers"),
        (("--target", "text", "--task", "labels"), "as many labels as texts"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder: Path, file: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in mapsto("adapt", folder, file, "--text", "text", *options, "--out", tmp_path / "out", code=2).err
    assert not (tmp_path / "out").exists()

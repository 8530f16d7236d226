"""Pairs of texts: an encoder that compares them, to a package that answers tables of two columns and lines with a tab."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.network.head import embed
from mapsto.nn.network.serialization import load, saved
from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.text.tiny_encoder import tiny_encoder

ROWS = [
    ("where is my card?", "my card is lost", 4.0),
    ("I like the red apple", "eat a green pear", 3.0),
    ("where is my card?", "eat a green pear", 0.5),
    ("pay the bank", "I like the red apple, please", 0.0),
    ("transfer money", "pay the bank", 4.5),
    ("transfer money", "a pear", 0.5),
    ("is it lost?", "is it lost", 5.0),
    ("help", "please help", 4.5),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Network:
    return HfText(folder=str(folder), length=12, texts=2)()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(
            [("score", "second", "first"), *((score, second, first) for first, second, score in ROWS)]
        )
    return path


def test_the_embedding_holds_both_texts_and_compares_them(folder: Path, encoder: Network) -> None:
    ids = torch.tensor([[[2, 5, 3, 0, 0], [2, 7, 8, 9, 3]], [[2, 11, 12, 3, 0], [2, 11, 12, 3, 0]]])
    alone = HfText(folder=str(folder), length=12)().module()
    first, second = (embed(alone, ids[:, place]) for place in (0, 1))
    parts = embed(encoder.module(), ids).split(first.shape[1], 1)
    cosine = (first * second).sum(1, keepdim=True).expand_as(first)
    for found, wanted in zip(parts, (first, second, (first - second).abs(), first * second, cosine), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    assert encoder.signature.inputs[0].shape == ("N", 2, "L")
    assert len(encoder.signature.inputs[0].ids) == 1


def test_an_encoder_of_pairs_is_saved_and_opened(encoder: Network, tmp_path: Path) -> None:
    for name, content in saved(encoder).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    opened = load(tmp_path)
    assert opened.signature == encoder.signature
    ids = torch.randint(1, 20, (3, 2, 6))
    assert torch.equal(opened.module()(ids), encoder.module()(ids))


@pytest.mark.slow
def test_adapt_makes_a_package_of_pairs(folder: Path, file: Path, tmp_path: Path) -> None:
    given = ("--text", "first", "--text", "second", "--target", "score", "--out", tmp_path / "run")
    found = json.loads(mapsto("adapt", folder, file, *given, "--json", code=0).out)
    assert found["task"] == "values"
    package = Predictor(tmp_path / "run" / "package")
    assert package.manifest["parity"]["max_abs_difference"] < 1e-4
    answers = package.predict([file])
    scores = [answer.scores["score"] for answer in answers]
    assert np.corrcoef(scores, [score for *_, score in ROWS])[0, 1] > 0.5
    (tmp_path / "lines.txt").write_text("".join(f"{first}\t{second}\n" for first, second, _ in ROWS))
    pairs = np.array([[first, second] for first, second, _ in ROWS], object)
    for each in (tmp_path / "lines.txt", pairs):
        assert [answer.scores["score"] for answer in package.predict([each])] == pytest.approx(scores, abs=1e-4)
    typed = [answer.scores["score"] for answer in package.predict([f"{first}\t{second}" for first, second, _ in ROWS])]
    assert typed == pytest.approx(scores, abs=1e-4)
    with pytest.raises(DataError, match="is 1 text, and the network takes 2"):
        package.predict(["where is my card?"])


def test_one_text_for_a_network_of_pairs_is_refused(encoder: Network, file: Path) -> None:
    data = datasets.text(file=str(file), text="first", target="score", task="values")
    with pytest.raises(DomainError, match="a sample is 1 texts, and the network takes 2"):
        Context().dataset(data, for_=encoder.signature.preprocessing)

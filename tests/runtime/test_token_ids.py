"""Whole numbers stay whole numbers: token ids from arrays through training, pruning and quantizing to a package's answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.command import mapsto
from tests.foreign import Tokens
from torch import nn

from mapsto import adapt, datasets, evaluate, export, networks, prune, quantize, train
from mapsto.errors import DataError
from mapsto.kinds import Network, Preprocessing, Signature, TensorSpec
from mapsto.nn.network.inference import forward
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.network.vocabulary import ids_of
from mapsto.report.build import save_package
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing import read_input

SIGNATURE = Signature(
    inputs=(TensorSpec(name="input", dtype="int64", shape=("N", 3)),),
    outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 2)),),
    preprocessing=Preprocessing(kind="none"),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of eight ids of type int32, of class ``seven`` where token 7 is among them."""
    folder = tmp_path_factory.mktemp("ids")
    random = np.random.default_rng(0)
    ids = random.integers(8, 40, (200, 8)).astype(np.int32)
    ids[::2, 3] = 7
    np.savez(folder / "ids.npz", inputs=ids, labels=np.where((ids == 7).any(1), "seven", "other"))
    np.save(folder / "some.npy", ids[:20])
    return folder


@pytest.mark.slow
def test_from_arrays_to_a_packages_answers(files: Path, tmp_path: Path) -> None:
    data = datasets.arrays(file=str(files / "ids.npz"))
    assert data.open().inputs.dtype == np.int32
    torch.manual_seed(0)
    given = Network.from_module(Tokens(), torch.zeros(2, 8, dtype=torch.int32), classes=data.open().classes)
    assert given.signature.inputs[0].dtype == "int64"
    trained = train.supervised(data=data, epochs=12, batch_size=50, learning_rate=0.1)(given)
    assert evaluate.accuracy(data=data)(trained).metrics["accuracy"].value > 90
    small = quantize.dynamic()(prune.magnitude(macs=0.9)(trained))
    assert adapt.linear(data=data)(trained).signature.inputs[0].dtype == "int64"
    package = export.onnx(data=data, samples=50)(small)
    assert package.manifest()["signature"]["inputs"][0]["dtype"] == "int64"
    assert package.manifest()["parity"]["top1_agreement"] == 1
    save_package(package, tmp_path / "package")
    ids = np.load(files / "some.npy")
    expected = forward(small.module(), ids, small.signature.preprocessing).softmax(1).numpy()
    for source in (ids, str(files / "some.npy"), ids.astype(np.float64)):
        answers = Predictor(tmp_path / "package").predict([source])
        found = np.array([[answer.scores[name] for name in small.signature.classes or ()] for answer in answers])
        assert np.abs(found - expected).max() < 1e-4
    shown = json.loads(mapsto("predict", tmp_path / "package", files / "some.npy", "--json", code=0).out)
    rows = shown["predictions"] if isinstance(shown, dict) else shown
    assert [row["label"] for row in rows] == [answer.label for answer in answers]


@settings(max_examples=30, deadline=None)
@given(
    ids=hnp.arrays(
        st.sampled_from([np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16, np.uint32]),
        (4, 3),
        elements=st.integers(0, 100),
    )
)
def test_ids_of_any_type_are_the_same_ids(ids: np.ndarray) -> None:
    expected = ids.astype(np.int64)
    signed = ids if ids.dtype.kind == "i" or ids.dtype == np.uint8 else expected
    assert torch.equal(prepare(signed, SIGNATURE.preprocessing), torch.from_numpy(expected))
    assert prepare(signed, Preprocessing(kind="none")).dtype == torch.float32
    for given_as in (ids, ids.astype(np.float32)):
        found = read_input(given_as, SIGNATURE)
        assert found.dtype == np.int64
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf, 1e300])
def test_fractions_are_no_ids(wrong: float) -> None:
    values = np.array([[1.0, 2.0, wrong]])
    with pytest.raises(DataError, match="whole numbers, such as token ids"):
        read_input(values, SIGNATURE)
    if wrong == 0.5:
        with pytest.raises(DataError, match="whole numbers, such as token ids"):
            prepare(values, SIGNATURE.preprocessing)


def test_a_signature_stores_nothing_new() -> None:
    assert SIGNATURE.preprocessing.integers
    assert "integers" not in SIGNATURE.plain()["preprocessing"]
    assert Signature.from_plain(SIGNATURE.plain()) == SIGNATURE


def test_features_that_are_whole_numbers_are_floats_to_a_network_of_floats(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 9, (60, 4))
    np.savez(tmp_path / "rows.npz", inputs=rows, labels=(rows[:, 0] > 4).astype(np.int64))
    data = datasets.arrays(file=str(tmp_path / "rows.npz"))
    trained = train.supervised(data=data, epochs=2, batch_size=20)(
        networks.mlp(data=data, widths=(4,), classes="data")()
    )
    assert trained.signature.inputs[0].dtype == "float32"
    assert forward(trained.module(), rows, trained.signature.preprocessing).shape == (60, 2)


class Pruned(nn.Module):
    """An embedding of 6 ids, and a linear head on the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).mean(1))


class Mixed(nn.Module):
    """A category and two numbers in one row of floats."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(3, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.table(x[:, 0].long()), x[:, 1:]], 1))


class Clamped(nn.Module):
    """Ids beyond the table count as its last."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids.clamp(0, 5)).mean(1)


class Pair(nn.Module):
    """Tokens, and which of two segments each is of, in rows of their own; both are looked up as sequences first."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.segments = nn.Embedding(9, 2), nn.Embedding(2, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        first, second = ids.transpose(0, 2).transpose(0, 1)
        return (self.tokens(first) + self.segments(second)).mean(0)


@pytest.mark.parametrize(
    ("module", "example", "known"),
    [
        (Pruned(), torch.zeros(2, 5, dtype=torch.int64), (6,)),
        (Mixed(), torch.zeros(2, 3), (3, 0, 0)),
        (Pair(), torch.zeros(2, 2, 4, dtype=torch.int64), (9, 2)),
        (Clamped(), torch.zeros(2, 5, dtype=torch.int64), ()),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), torch.zeros(2, 3), ()),
    ],
)
def test_how_many_ids_there_are_is_found(module: nn.Module, example: torch.Tensor, known: tuple[int, ...]) -> None:
    assert ids_of(module.eval(), example) == known


def test_an_id_that_the_network_does_not_have_is_refused_everywhere(tmp_path: Path) -> None:
    """ONNX takes -1 for the last id; so does the map of an embedding whose rows were pruned, in PyTorch too."""
    ids = np.random.default_rng(0).integers(0, 5, (20, 5))
    ids[0, 0] = 0
    np.savez(tmp_path / "good.npz", inputs=ids, labels=np.arange(20) % 2)
    good = datasets.arrays(file=str(tmp_path / "good.npz"))
    whole = Network.from_module(Pruned(), torch.zeros(2, 5, dtype=torch.int64), classes=("0", "1"))
    small = prune.embedding_rows(data=good, unknown=0)(whole)
    assert small.module().table.num_embeddings == 5
    for number, network in enumerate((whole, small)):
        save_package(export.onnx()(network), tmp_path / f"package {number}")
    for wrong in (-1, 6):
        ids[7, 2] = wrong
        said = f"sample 7 holds the id {wrong}, and the network has 6, 0 to 5"
        np.save(tmp_path / "bad.npy", ids)
        np.savez(tmp_path / f"bad {wrong}.npz", inputs=ids, labels=np.arange(20) % 2)
        bad = datasets.arrays(file=str(tmp_path / f"bad {wrong}.npz"))
        for number, network in enumerate((whole, small)):
            with pytest.raises(DataError, match=said):
                evaluate.accuracy(data=bad)(network)
            with pytest.raises(DataError, match=f"holds the id {wrong}, and the network has 6"):
                train.supervised(data=bad, epochs=1)(network)
            predictor = Predictor(tmp_path / f"package {number}")
            assert predictor.manifest["format"] == 3
            with pytest.raises(DataError, match=f"<array>: {said}"):
                predictor.predict([ids])
            with pytest.raises(DataError, match=said):
                predictor.outputs(ids)
    assert f"bad.npy: {said}" in mapsto("predict", tmp_path / "package 1", tmp_path / "bad.npy", code=2).err


def test_the_number_of_ids_is_stored_only_where_there_is_one() -> None:
    network = Network.from_module(Mixed(), torch.zeros(2, 3))
    assert network.signature.plain()["inputs"][0]["ids"] == (3, 0, 0)
    assert Signature.from_plain(network.signature.plain()) == network.signature
    assert "ids" not in SIGNATURE.plain()["inputs"][0]
    with pytest.raises(DataError, match=r"sample 1 holds the id -1\.0, and the network has 3"):
        read_input(np.array([[0, -5, 9], [-1, 0, 0]], np.float32), network.signature)
    assert read_input(np.array([[2, -5, 9]], np.float32), network.signature).tolist() == [[2, -5, 9]]

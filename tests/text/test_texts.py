"""Texts from a file to a package that answers them: reading, token ids, parity on padded batches, what is refused and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.network.inference import forward
from mapsto_runtime.errors import StoreError
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing.texts import batches
from tests.command import mapsto
from tests.text.packages import ROWS, adapted_package, text_package, write_table
from tests.text.tiny_encoder import tiny_encoder, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Network:
    return HfText(folder=str(folder), length=12)()


def test_a_file_in_every_form_gives_the_same_texts(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": text, "intent": intent}) + "\n" for text, intent in ROWS)
    (tmp_path / "a.jsonl").write_text(lines)
    columns = {"text": [text for text, _ in ROWS], "intent": [intent for _, intent in ROWS]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    files = [
        write_table(tmp_path / "a.csv"),
        write_table(tmp_path / "b.csv", delimiter=";"),
        write_table(tmp_path / "a.tsv", delimiter="\t"),
        write_table(tmp_path / "c.csv", encoding="utf-16"),
        tmp_path / "a.jsonl",
        tmp_path / "a.parquet",
    ]
    for file in files:
        samples = datasets.text(file=str(file), target="intent").open()
        assert samples.inputs.tolist() == [text for text, _ in ROWS], file
        assert [samples.classes[label] for label in samples.labels] == [intent for _, intent in ROWS]


def test_a_network_reads_texts_by_its_own_tokenizer(encoder: Network, tmp_path: Path) -> None:
    data = datasets.text(file=str(write_table(tmp_path / "a.csv")), target="intent")
    samples = Context().dataset(data, for_=encoder.signature.preprocessing)
    wanted = [each.ids for each in tokenizer().encode_batch([text for text, _ in ROWS])]
    assert samples.inputs.dtype == np.int64
    for row, own in zip(samples.inputs.tolist(), wanted, strict=True):
        assert row[: len(own[:12])] == [*own[:11], own[-1]] if len(own) > 12 else own
        assert set(row[len(own) :]) <= {0}


def test_padding_and_the_company_of_other_texts_change_nothing(encoder: Network) -> None:
    ids = np.array([[2, 5, 3, 0, 0, 0], [2, 7, 8, 9, 10, 3], [2, 11, 12, 3, 0, 0]])
    module, before = encoder.module(), encoder.signature.preprocessing
    together = forward(module, ids, before, batch_size=2)
    alone = torch.cat([module(torch.tensor([[each for each in row if each]])) for row in ids.tolist()])
    assert torch.allclose(together, alone.detach(), atol=1e-5)
    assert torch.allclose(module(torch.tensor(ids)).detach(), alone.detach(), atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-5)


def test_texts_of_a_batch_are_of_like_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, 256)
    ids = np.where(np.arange(60) < lengths[:, None], 1, 0)
    work = sum(part.size for _, part in batches(ids, 0, 16))
    assert work < 1.1 * lengths.sum()
    assert sorted(np.concatenate([places for places, _ in batches(ids, 0, 16)]).tolist()) == list(range(256))


@pytest.fixture(scope="module")
def package(encoder: Network, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    place = tmp_path_factory.mktemp("package")
    made = adapted_package(encoder, write_table(place / "rows.csv"), place / "package")
    parity = made.manifest()["parity"]
    assert parity["top1_agreement"] == 1
    assert parity["max_abs_difference"] < 1e-4
    return Predictor(place / "package")


def test_a_package_answers_strings_files_and_arrays(package: Predictor, tmp_path: Path) -> None:
    texts = [text for text, _ in ROWS]
    answers = package.predict(texts)
    assert [answer.label for answer in answers] == [intent for _, intent in ROWS]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    for given in (tmp_path / "texts.txt", write_table(tmp_path / "rows.csv"), np.array(texts, object), np.array(texts)):
        found = package.predict([given])
        assert [each.label for each in found] == [each.label for each in answers], given
        for one, other in zip(found, answers, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-5)
    assert package.predict(["\n".join(texts).encode()])[0].label == "card"


@pytest.mark.parametrize(
    ("given", "message"),
    [("", "is empty"), ("  \n", "is empty"), (np.array([["a", "b"]]), "shape"), (np.array([[99]]), "99")],
)
def test_what_is_no_text_is_refused(package: Predictor, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        package.predict([given])


def test_what_is_cut_off_or_unknown_is_said(package: Predictor) -> None:
    long = package.answers(["card " * 10_000])
    assert "longer than 12 tokens" in long.notes[0]
    strange = package.answers(["привет мир", "my card"])
    assert "knows less than half" in strange.notes[0]
    assert len(strange.predictions) == 2


def test_a_damaged_tokenizer_is_noticed(package: Predictor, tmp_path: Path) -> None:
    for path in package.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match=r"tokenizer\.json"):
        Predictor(tmp_path)


def test_rows_that_cannot_be_used_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [*ROWS, ("", "card"), ("My card is  LOST", "card"), ("where is my card?", "fruit"), ("it is lost", "")]
    data = datasets.text(file=str(write_table(tmp_path / "a.csv", rows)), target="intent", unlabelled="leave_out")
    samples = data.open()
    said = "\n".join(samples.warnings)
    assert "1 of 10 rows is left out, for the text is empty (row 7)" in said
    assert "for the target holds no value (row 10)" in said
    assert "the same text stands before with the same target (row 8)" in said
    assert "'where is my card?' as 'card' (row 1), 'fruit' (row 9)" in said
    assert len(samples) == len(ROWS) + 1
    with pytest.raises(DataError, match="row 10: the target holds no value"):
        datasets.text(file=data.file, target="intent").open()


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = str(write_table(tmp_path / "a.csv"))
    with pytest.raises(SpecError, match=r"no column 'texts'; did you mean 'text'"):
        datasets.text(file=file, text="texts", target="intent").open()
    with pytest.raises(SpecError, match="no column 'label'"):
        datasets.text(file=file, target="label").open()


def test_several_labels_in_one_column(tmp_path: Path) -> None:
    rows = [("a red apple", "red; fruit"), ("blue", "blue"), ("it", "")]
    samples = datasets.text(file=str(write_table(tmp_path / "a.csv", rows)), target="intent", task="labels").open()
    assert samples.classes == ("blue", "fruit", "red")
    assert samples.labels.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_splits_share_no_row(tmp_path: Path) -> None:
    rows = [(f"text {number}", "ab"[number % 2]) for number in range(50)]
    file = str(write_table(tmp_path / "a.csv", rows))
    train, test = (datasets.text(file=file, target="intent", split=split).open() for split in ("train", "test"))
    assert len(train) == 40
    assert len(test) == 10
    assert not set(train.inputs) & set(test.inputs)


def test_a_tokenizer_that_does_not_fit_the_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 9}))
    with pytest.raises(DataError, match="does not fit the weights"):
        HfText(folder=str(tmp_path), length=12)()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="no tokenizer that can be read"):
        HfText(folder=str(tmp_path), length=12)()


def test_a_blank_line_keeps_the_places_of_the_others(tmp_path: Path) -> None:
    """Whoever joins answers to lines by their number would else join wrong ones."""
    from mapsto_runtime.preprocessing.text_files import texts_in

    given = b"my card\n\n  \nwhere is it?\n\n"
    assert texts_in(given, "<stdin>").texts == ("my card", "", "", "where is it?")
    assert texts_in(b"a\tb\n\nc\td", "<stdin>", parts=2).texts == (("a", "b"), ("", ""), ("c", "d"))
    (tmp_path / "more.txt").write_bytes(given)
    assert datasets.text(file=str(tmp_path / "more.txt")).open().inputs.tolist() == ["my card", "where is it?"]
    package = text_package(tmp_path)
    shown = mapsto("predict", package, "-", "--json", code=2, given=given)
    assert [each["index"] for each in json.loads(shown.out)] == [0, 3]
    assert "text 2" in shown.err or "[1]" in shown.err, shown.err

"""Words with tags: files of two forms, labels on first tokens, and a package that finds spans in raw texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Network
from mapsto.mappings.adapt.tagger import Tagger
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.evaluate.tagging import tagging_figures
from mapsto.nn.network.inference import forward
from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.text.tiny_encoder import tiny_encoder, tokenizer

SENTENCES = [
    ("my red apple is lost", "O B-FRUIT I-FRUIT O O"),
    ("eat a green pear please", "O O B-FRUIT I-FRUIT O"),
    ("I like apple and pear", "O O B-FRUIT O B-FRUIT"),
    ("the bank is lost .", "O B-PLACE O O O"),
    ("where is the bank ?", "O O O B-PLACE O"),
    ("pay my card", "O O O"),
    ("a blue pear", "O B-FRUIT I-FRUIT"),
    ("help", "O"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"), size=32)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Network:
    return HfText(folder=str(folder), length=12)()


def written(path: Path, sentences: list[tuple[str, str]] = SENTENCES) -> Path:
    """JSON Lines, Parquet, or a word and its tag a line."""
    rows = [{"tokens": words.split(), "tags": tags.split()} for words, tags in sentences]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = ["\n".join(f"{word}\t{tag}" for word, tag in zip(*row.values(), strict=True)) for row in rows]
        path.write_text("\n\n".join(lines))
    return path


def test_files_of_every_form_give_the_same(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.parquet", "a.txt"):
        samples = datasets.tags(file=str(written(tmp_path / name))).open()
        assert samples.inputs.tolist() == [words for words, _ in SENTENCES]
        assert samples.classes == ("O", "B-FRUIT", "B-PLACE", "I-FRUIT")
        said = [[samples.classes[tag] for tag in row if tag >= 0] for row in samples.labels]
        assert said == [tags.split() for _, tags in SENTENCES]


def test_each_word_has_its_tag_at_its_first_token(encoder: Network, tmp_path: Path) -> None:
    data = datasets.tags(file=str(written(tmp_path / "a.jsonl", [("apples eat lost", "B-X O B-X"), ("I ate", "O O")])))
    samples = Context().dataset(data, for_=encoder.signature.preprocessing)
    tokens = tokenizer().encode("apples eat lost").tokens
    assert tokens == ["[CLS]", "apple", "##s", "eat", "lost", "[SEP]"]
    assert samples.labels[0].tolist() == [-100, 1, -100, 0, 1, -100]


@pytest.mark.slow
def test_adapt_makes_a_package_that_finds_spans(folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl")
    found = json.loads(mapsto("adapt", folder, file, "--task", "tags", "--out", tmp_path / "run", "--json", code=0).out)
    assert found["classes"] == {"FRUIT": 5, "PLACE": 2}
    assert 0 <= found["span_f1_percent"] <= 100
    package = Predictor(tmp_path / "run" / "package")
    assert package.signature.answers == "tags"
    assert package.manifest["parity"]["max_abs_difference"] < 1e-4
    answers = package.predict([words for words, _ in SENTENCES])
    spans = [[(span.text, span.label) for span in answer.spans or ()] for answer in answers]
    assert {label for _, label in spans[0]} == {"FRUIT"}
    assert " ".join(span for span, _ in spans[0]) == "red apple"
    assert spans[4] == [("bank", "PLACE")]
    text = "Where's my   red apple, please?"
    (answer,) = package.predict([text])
    for span in answer.spans or ():
        assert text[span.start : span.end] == span.text
        assert 0 < span.probability <= 1
    (tmp_path / "texts.txt").write_text("\n".join(words for words, _ in SENTENCES))
    assert [each.spans for each in package.predict([tmp_path / "texts.txt"])] == [each.spans for each in answers]
    shown = mapsto("predict", tmp_path / "run", "where is the bank ?", "--json", code=0).out
    assert json.loads(shown)[0]["spans"][0] | {"probability": 0} == {
        "text": "bank",
        "start": 13,
        "end": 17,
        "label": "PLACE",
        "probability": 0,
    }
    with pytest.raises(DataError, match="words are found in texts alone"):
        package.predict([np.array([[2, 5, 3]])])


def test_outputs_of_texts_of_other_lengths_stand_together(encoder: Network, tmp_path: Path) -> None:
    data = datasets.tags(file=str(written(tmp_path / "a.txt")))
    ctx = Context()
    tagger = ctx.apply(Tagger(data=data, strength=1.0, folds=0), encoder)
    ids = np.array([[2, 5, 3, 0, 0], [2, 7, 8, 9, 3]])
    together = forward(tagger.module(), ids, tagger.signature.preprocessing, batch_size=1)
    assert together.shape == (2, 4, 5)
    assert together[:1, :, :3].allclose(
        forward(tagger.module(), ids[:1, :3], tagger.signature.preprocessing), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', DataError, "row 1 has 2 words and 1 tags"),
        ("a.jsonl", '{"words": ["a"], "tags": ["O"]}\n', SpecError, "no column 'tokens'"),
        ("a.txt", "a\tO\nb\n", DataError, "line 2 holds 'b', a word without a tag"),
        ("a.txt", "a\tO\nb\tO\n", DataError, "every word has the tag 'O'"),
        ("a.txt", "\n\n", DataError, "holds no sentences"),
    ],
)
def test_what_is_no_tagged_sentence_is_refused(
    tmp_path: Path, name: str, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        datasets.tags(file=str(tmp_path / name)).open()


def test_spans_count_only_where_both_ends_and_the_label_are_right() -> None:
    wanted: list[Any] = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"]]
    given: list[Any] = [["B-X", "I-X", "O", "B-X"], ["B-X", "I-X"]]
    found = tagging_figures(wanted, given, known=["O", "B-X", "I-X", "B-Y"])
    assert found.per_label == {"X": (1, 2, 3), "Y": (0, 1, 0)}
    assert found.f1 == pytest.approx(200 / 6)
    assert (found.right, found.words) == (3, 6)

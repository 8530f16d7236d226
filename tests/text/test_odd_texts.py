"""Texts that are not as usual: separators of lines within them, halves of surrogate pairs, megabytes, long numbers, combining marks."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Preprocessing
from mapsto_runtime.preprocessing.text_files import texts_in
from mapsto_runtime.preprocessing.texts import encoded, encodings
from mapsto_runtime.preprocessing.words import words_of
from tests.text.tiny_encoder import tokenizer


def preprocessing(length: int = 12) -> Preprocessing:
    content = tokenizer().to_str().encode()
    return Preprocessing(kind="text", length=length, tokenizer="0" * 64, tokenizer_json=content)


def written(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0c", "\x1c"])
def test_only_ends_of_lines_end_a_line(tmp_path: Path, sign: str) -> None:
    assert texts_in(f"a{sign}b\r\nc\nd".encode(), "a.txt").texts == (f"a{sign}b", "c", "d")
    assert texts_in(f"text,y\na{sign}b,1\n".encode(), "a.csv").texts == (f"a{sign}b",)
    if sign >= " ":  # JSON allows no control characters within a text
        file = written(tmp_path / "a.jsonl", {"text": f"a{sign}b", "y": [f"p{sign}q"]}, {"text": "c", "y": ["r"]})
        samples = datasets.text(file=file, target="y", task="labels").open()
        assert samples.inputs.tolist() == [f"a{sign}b", "c"]
        assert samples.classes == (f"p{sign}q", "r")


def test_a_long_first_line_is_json_all_the_same(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", {"text": "a " * 40_000, "y": "x"}, {"text": "b", "y": "y"})
    assert datasets.text(file=file, target="y").open().classes == ("x", "y")


def test_half_of_a_pair_of_surrogates_is_left_out_or_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "bad \\ud83d", "y": "x"}\n{"text": "one", "y": "y"}\n{"text": "two", "y": "z"}\n')
    data = datasets.text(file=str(path), target="y")
    samples = Context().dataset(data, for_=preprocessing())
    assert samples.inputs.shape[0] == len(samples.labels) == 2
    assert samples.warnings[0].startswith("a.jsonl: 1 of 3 rows is left out, for it is no text: half of a pair")
    path.write_text('{"text": "one", "y": "\\ud83d"}\n{"text": "two", "y": "z"}\n')
    with pytest.raises(DataError, match=r"half of a pair of surrogates stands in the class '\\ud83d'"):
        data.open()


def test_labels_of_lists_are_stripped_and_alike_ones_warned_of(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", {"text": "a", "t": ["x", " x", ""]}, {"text": "b", "t": ["X ", "y", " "]})
    samples = datasets.text(file=file, target="t", task="labels").open()
    assert samples.classes == ("X", "x", "y")
    assert samples.labels.tolist() == [[0, 1, 0], [1, 0, 1]]
    (warning,) = samples.warnings
    assert "'X', 'x' count as different" in warning


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("card lost " * 5000, True),
        ("card " + "money" * 3000, False),
        (" " * 5000 + "card lost", False),
        ("日" * 5000, True),
        ("x" * 5000 + " card" * 50, True),
    ],
)
def test_a_long_text_is_read_as_one_that_is_not_cut_before(text: str, cut: bool) -> None:
    before = preprocessing()
    whole = tokenizer()
    whole.enable_truncation(before.length)
    wanted = whole.encode(text)
    for others in ([], ["card"]):
        found = encoded([text, *others], before, "a")
        assert [each for each in found.ids[0].tolist() if each != before.padding] == wanted.ids
        assert any("longer than 12 tokens" in note for note in found.notes) == cut == bool(wanted.overflowing)
    assert encodings([text], before, offsets=True)[0].offsets == wanted.offsets


def test_of_a_long_text_only_the_beginning_is_given_to_the_tokenizer() -> None:
    (found,) = encodings(["card lost " * 100_000], preprocessing())
    assert len(found.overflowing) < 200


def test_numbers_are_texts_with_all_their_digits(tmp_path: Path) -> None:
    lines = '{"text": 12345678901234567, "y": 98765432109876543}\n{"text": 1.50, "y": 2}\n{"text": 1e5, "y": 2}\n'
    assert texts_in(lines.encode(), "a.jsonl").texts == ("12345678901234567", "1.50", "1e5")
    (tmp_path / "a.jsonl").write_text(lines)
    samples = datasets.text(file=str(tmp_path / "a.jsonl"), target="y").open()
    assert samples.inputs.tolist() == ["12345678901234567", "1.50", "1e5"]
    assert set(samples.classes) == {"98765432109876543", "2"}
    pq.write_table(pa.table({"text": [12345678901234567, None, 3]}), tmp_path / "a.parquet")
    assert texts_in((tmp_path / "a.parquet").read_bytes(), "a").texts == ("12345678901234567", "", "3")
    values = datasets.text(file=str(tmp_path / "a.jsonl"), target="y", task="values").open()
    assert values.labels.dtype == np.float32
    with pytest.raises(DataError, match="beyond every other"):
        texts_in(f'{{"text": 1{"0" * 400}}}\n'.encode(), "a.jsonl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        (unicodedata.normalize("NFD", "un café noir"), ["un", unicodedata.normalize("NFD", "café"), "noir"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("❤\ufe0f ok", ["❤\ufe0f", "ok"]),
        ("don't, 10:30!", ["don't", ",", "10:30", "!"]),
    ],
)
def test_marks_continue_a_word(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in words_of(text)] == words

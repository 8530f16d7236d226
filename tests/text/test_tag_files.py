"""What files of tagged words hold beside plain BIO: blanks in words, comments, other schemes, repeats, broken lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto import datasets
from mapsto.context import Context
from mapsto.errors import DataError
from mapsto.kinds import Network, Samples
from mapsto.mappings.adapt.tagger import Tagger
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.adapt import logistic
from tests.text.tiny_encoder import tiny_encoder

_WORDS = "the a my is where card money bank lost red green blue apple pear fruit eat like pay transfer please"
WORDS = _WORDS.split()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"), size=32)), length=12)()


def opened(path: Path, text: str) -> Samples:
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return datasets.tags(file=str(path)).open()


def tags_of(samples: Samples) -> list[list[str]]:
    return [[samples.classes[tag] for tag in row if tag >= 0] for row in samples.labels]


def lines_of(*sentences: str) -> str:
    """``word/TAG`` with blanks between, as JSON Lines."""
    pairs = [[word.rsplit("/", 1) for word in sentence.split()] for sentence in sentences]
    rows = [{"tokens": [word for word, _ in each], "tags": [tag for _, tag in each]} for each in pairs]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_word_with_blanks_inside_is_several_of_one_span(encoder: Network, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("red  apple\tB-X\nis\tO\nlost\tB-Y\n\nmy\tO\nthe bank\tZ\n")
    data = datasets.tags(file=str(tmp_path / "a.tsv"))
    samples = data.open()
    assert samples.inputs.tolist() == ["red apple is lost", "my the bank"]
    assert tags_of(samples) == [["B-X", "I-X", "O", "B-Y"], ["O", "Z", "Z"]]
    assert "2 words have blanks inside, as 'red apple'" not in samples.notes[0]  # as it stands there, with two blanks
    assert "2 words have blanks inside, as 'red  apple'" in samples.notes[0]
    read = Context().dataset(data, for_=encoder.signature.preprocessing)
    assert [read.classes[tag] for tag in read.labels[0] if tag >= 0] == ["B-X", "I-X", "O", "B-Y"]
    samples = opened(tmp_path / "b.jsonl", '{"tokens": ["call", "555\u00a01234"], "tags": ["O", "B-P"]}\n')
    assert tags_of(samples) == [["O", "B-P", "I-P"]]


def test_comments_above_words_with_tabs_are_left_out(tmp_path: Path) -> None:
    samples = opened(tmp_path / "a.tsv", "# text = Bob sleeps\nBob\tB-X\nsleeps\tO\n#\tO\n")
    assert samples.inputs.tolist() == ["Bob sleeps #"]
    assert samples.notes == ("a.tsv: 1 line that begin with # are left out as comments",)
    assert opened(tmp_path / "b.txt", "# O\nBob B-X\n").inputs.tolist() == ["# Bob"]


def test_conll_u_gives_forms_and_parts_of_speech(tmp_path: Path) -> None:
    rest = "_\t_\t0\troot\t_\t_"
    text = f"# sent_id = 1\n1-2\tdon't\t_\t_\t{rest}\n1\tdo\tdo\tAUX\t{rest}\n2\tn't\tnot\tPART\t{rest}\n2.1\tx\t_\tX\t{rest}\n"
    samples = opened(tmp_path / "a.conllu", text)
    assert samples.inputs.tolist() == ["do n't"]
    assert tags_of(samples) == [["AUX", "PART"]]
    assert "it is CoNLL-U" in samples.notes[1]


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("B-X I-X E-X S-X O", "B-X I-X I-X B-X O"),
        ("B-X L-X L-X U-Y U-Y", "B-X I-X B-X B-Y B-Y"),
        ("B-X M-X E-X O S-Y", "B-X I-X I-X O B-Y"),
        ("B-X I-X O o O", "B-X I-X O o O"),
        ("E-MAIL O O E-MAIL O", "E-MAIL O O E-MAIL O"),
    ],
)
def test_schemes_with_ends_are_read_as_bio(tmp_path: Path, tags: str, wanted: str) -> None:
    text = "".join(f"{word}\t{tag}\n" for word, tag in zip("abcde", tags.split(), strict=True))
    samples = opened(tmp_path / "a.tsv", text)
    assert tags_of(samples) == [wanted.split()]
    assert any("BIOES" in note for note in samples.notes) == (tags != wanted)
    assert any("'O', 'o'" in text or "'o'" in text for text in samples.warnings) == ("o" in tags.split())


def test_a_lone_small_o_is_warned_of(tmp_path: Path) -> None:
    (warning,) = opened(tmp_path / "a.tsv", "a\to\nb\tB-X\n").warnings
    assert warning.startswith("a.tsv: the tag 'o' counts as a label of its own; write O")


def test_repeated_sentences_are_dropped_and_equal_ones_stay_together(tmp_path: Path) -> None:
    sentences = [f"{word}/O card/X" for word in WORDS]
    text = lines_of(*sentences, *sentences[:3], "the/X card/O")
    samples = opened(tmp_path / "a.jsonl", text)
    assert len(samples) == len(WORDS) + 1
    dropped, other = samples.warnings
    assert "3 of 24 sentences are left out, for the same sentence stands before with the same tags" in dropped
    assert "a sentence stands there before with other tags" in other
    file = str(tmp_path / "a.jsonl")
    assert len(datasets.tags(file=file, repeated="keep").open()) == 24
    parts = [set(datasets.tags(file=file, split=part).open().inputs) for part in ("train", "test")]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == len(WORDS)


def test_tags_by_chance_are_not_judged_by_sentences_that_were_learnt_from(encoder: Network, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sentences = [
        " ".join(f"{word}/{tag}" for word, tag in zip(rng.choice(WORDS, 4), rng.choice(["X", "Y"], 4), strict=True))
        for _ in range(6)
    ]
    (tmp_path / "a.jsonl").write_text(lines_of(*sentences * 3))
    ctx = Context()
    data = datasets.tags(file=str(tmp_path / "a.jsonl"), repeated="keep")
    ctx.apply(Tagger(data=data, strength=10.0), encoder)
    table: Any = ctx.attached["tagging"]
    figures = dict(table.rows)
    assert figures["words right"] < 60


def test_strength_is_chosen_by_groups_that_were_not_learnt_from() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    rows, labels = rng.normal(size=(20, 30))[groups], rng.integers(0, 2, 20)[groups]
    by_rows, _ = logistic.chosen(rows, labels, 2, np.random.default_rng(0))
    by_groups, losses = logistic.chosen(rows, labels, 2, np.random.default_rng(0), groups=groups)
    assert by_rows == max(logistic.STRENGTHS)
    assert by_groups == min(logistic.STRENGTHS)
    assert min(losses.values()) > 0.6
    assert logistic.chosen(rows, groups // 10, 2, np.random.default_rng(0), groups=groups // 10) == (
        logistic.STRENGTH,
        {},
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tokens": ["b"', "line 2 is no JSON"),
        ('["b"]', "line 2 is no object"),
        ('{"tokens": [1], "tags": ["O"]}', r"row 2: 'tokens' holds \[1\], no list of words"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "a.jsonl", lines_of("a/O b/X") + line + "\n")


def test_a_sentence_with_half_a_pair_of_surrogates_is_left_out(encoder: Network, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    samples = opened(path, lines_of("a/O b/X", "c/O d/X") + '{"tokens": ["\\ud83d"], "tags": ["Y"]}\n')
    assert samples.inputs.tolist() == ["a b", "c d"]
    assert samples.classes == ("O", "X")
    assert "1 of 3 sentences is left out" in samples.warnings[0]
    assert len(Context().dataset(datasets.tags(file=str(path)), for_=encoder.signature.preprocessing)) == 2
    with pytest.raises(DataError, match="stands in every sentence"):
        opened(path, '{"tokens": ["\\ud83d"], "tags": ["Y"]}\n')


def test_a_separator_of_lines_within_a_word_ends_no_line(tmp_path: Path) -> None:
    samples = opened(tmp_path / "a.tsv", "a\u2028b\tX\r\nc\x0c\tO\r\n")
    assert samples.inputs.tolist() == ["a b c"]
    text = '{"tokens": ["a\u2028b", "c"], "tags": ["X", "O"]}\n'
    assert opened(tmp_path / "a.jsonl", text).inputs.tolist() == ["a b c"]

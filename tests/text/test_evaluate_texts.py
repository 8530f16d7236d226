"""``mapsto evaluate`` of packages that read texts: several labels, numbers and tagged words, in the forms that ``mapsto adapt`` takes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mapsto_runtime.predictor import Predictor
from tests.command import mapsto
from tests.text.packages import text_package
from tests.text.test_tagging import SENTENCES, written
from tests.text.test_text_targets import ROWS
from tests.text.tiny_encoder import tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def adapted(encoder: Path, file: Path, *options: str) -> Path:
    """The package."""
    store = file.parent / "store"
    mapsto("adapt", encoder, file, *options, "--out", file.parent / "run", "--store", store, "--json", code=0)
    return file.parent / "run" / "package"


def evaluate(*arguments: object, code: int = 0) -> Any:
    done = mapsto("evaluate", *arguments, "--no-speed", "--json", code=code)
    return json.loads(done.out) if code == 0 else done.err


def figures(card: dict[str, Any]) -> dict[str, Any]:
    (result,) = card["packages"][0]["results"].values()
    return result["metrics"]


@pytest.mark.slow
def test_labels_are_judged_in_every_form(encoder: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "rows.csv", ("text", "about"), [(text, labels) for text, labels, *_ in ROWS])
    place = adapted(encoder, file, "--text", "text", "--target", "about", "--task", "labels")
    said = [{*answer.label.split(", ")} for answer in Predictor(place).predict([text for text, *_ in ROWS])]
    wanted = [{part.strip() for part in labels.split(";")} for _, labels, *_ in ROWS]
    card = evaluate(place, "--data", file)
    exact = 100 * sum(one == two for one, two in zip(said, wanted, strict=True)) / len(ROWS)
    assert figures(card)["all_right"]["value"] == pytest.approx(exact)
    right = sum(len(one & two) for one, two in zip(said, wanted, strict=True))
    micro = 200 * right / sum(len(one - {"none"}) + len(two) for one, two in zip(said, wanted, strict=True))
    assert figures(card)["micro_f1"]["value"] == pytest.approx(micro)
    assert card["data"][0]["target"] == "about"
    assert [row[0] for row in next(iter(card["packages"][0]["results"].values()))["per_class"]["rows"]] == [
        "card",
        "fruit",
        "lost",
    ]
    lines = [
        json.dumps({"text": text, "kinds": [part.strip() for part in labels.split(";")]}) for text, labels, *_ in ROWS
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    names = ("card", "fruit", "lost")
    ones = table(
        tmp_path / "ones.csv",
        ("text", *names),
        [(row[0], *(int(name in labels) for name in names)) for row, labels in zip(ROWS, wanted, strict=True)],
    )
    for other in (tmp_path / "rows.jsonl", ones):
        assert figures(evaluate(place, "--data", other)) == figures(card)
    strange = table(tmp_path / "strange.csv", ("text", "about"), [*[row[:2] for row in ROWS[:4]], ("it", "card; new")])
    assert "1 text has labels that the package does not know ('new'), which are not judged" in " ".join(
        evaluate(place, "--data", strange)["warnings"]
    )
    none = table(tmp_path / "none.csv", ("text", "about"), [("it", "x; y"), ("apple", "y")])
    assert "knows none of its labels ('x', 'y')" in evaluate(place, "--data", none, code=2)


@pytest.mark.slow
def test_numbers_are_judged_by_the_column_that_the_package_names(encoder: Path, tmp_path: Path) -> None:
    file = table(tmp_path / "rows.csv", ("text", "stars", "id"), [(row[0], row[4], n) for n, row in enumerate(ROWS)])
    place = adapted(encoder, file, "--text", "text", "--target", "stars")
    card = evaluate(place, "--data", file)
    answers = [answer.scores["stars"] for answer in Predictor(place).predict([row[0] for row in ROWS])]
    errors = [abs(one - float(row[4])) for one, row in zip(answers, ROWS, strict=True)]
    assert figures(card)["mae"]["value"] == pytest.approx(sum(errors) / len(errors), abs=1e-4)
    assert card["data"][0]["target"] == "stars"


@pytest.mark.slow
def test_tagged_words_are_judged_in_every_form(encoder: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl")
    place = adapted(encoder, file, "--task", "tags")
    card = evaluate(place, "--data", file)
    answers = Predictor(place).predict([words for words, _ in SENTENCES])
    there = [
        {(" ".join(pieces), label) for pieces, label in _spans(words.split(), tags.split())}
        for words, tags in SENTENCES
    ]
    said = [{(span.text, span.label) for span in answer.spans or ()} for answer in answers]
    right, found, wanted = (
        sum(map(len, each)) for each in ([one & two for one, two in zip(there, said, strict=True)], said, there)
    )
    assert figures(card)["span_f1"]["value"] == pytest.approx(200 * right / (found + wanted))
    assert figures(card)["words_right"]["n"] == sum(len(words.split()) for words, _ in SENTENCES)
    for name in ("a.parquet", "a.txt", "a.conll"):
        assert figures(evaluate(place, "--data", written(tmp_path / name))) == figures(card)
    shown = mapsto("evaluate", place, "--data", file, "--no-speed", code=0).out
    assert "F1 of spans" in shown
    strange = written(tmp_path / "strange.jsonl", [("my card", "O B-CARD"), ("help", "O")])
    assert "knows none of its tags ('B-CARD')" in evaluate(place, "--data", strange, code=2)


def _spans(words: list[str], tags: list[str]) -> list[tuple[list[str], str]]:
    found: list[tuple[list[str], str]] = []
    for word, tag in zip(words, tags, strict=True):
        if tag.startswith("I-") and found:
            found[-1][0].append(word)
        elif tag != "O":
            found.append(([word], tag[2:]))
    return found


@pytest.mark.slow
def test_the_table_says_how_many_of_the_samples_are_judged(tmp_path: Path) -> None:
    package = text_package(tmp_path)
    rows = [("my card is lost", "card"), ("a red apple", "fruit"), ("please help", "other")]
    file = table(tmp_path / "test.csv", ("text", "intent"), rows)
    shown = mapsto("evaluate", package, "--data", file, "--no-speed", code=0).out
    assert "2 of 3" in shown
    assert "3 samples, 2 of them judged" in (tmp_path / "card.html").read_text()

"""Answers as ``mapsto predict`` and ``mapsto-predict`` give them: a row of JSON for machines, a line for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mapsto_runtime.errors import DataError
from mapsto_runtime.predictor import Answers, Prediction, Predictor
from mapsto_runtime.preprocessing import Input
from mapsto_runtime.preprocessing.text_files import TABLES
from mapsto_runtime.shown import short

__all__ = ["given_input", "line", "package_folder", "rows"]

_PATH = 4096
"""Letters of a path, or of what is shown whole."""


def package_folder(place: Path) -> Path:
    """The folder of a package, given itself or the folder of the run that made it."""
    inside = place / "package"
    return inside if (inside / "manifest.json").is_file() else place


def given_input(name: str, *, texts: bool) -> Input:
    """What was typed as an input: a file, standard input, or of a package that reads texts a text.

    >>> given_input("photo.png", texts=False), given_input("where is my card?", texts=True)
    (PosixPath('photo.png'), 'where is my card?')

    Raises
    ------
    DataError
        It is named as a file of texts, and there is none.
    """
    if name == "-":
        return sys.stdin.buffer.read()
    if not texts:
        return Path(name)
    try:
        there = bool(name) and Path(name).exists()
    except (OSError, ValueError):  # no file can have such a name
        there = False
    if there:
        return Path(name)
    if Path(name).suffix.lower() in _FILES and not any(letter.isspace() for letter in name):
        raise DataError("there is no such file", where=name, hint="check the path, or give the text itself")
    return name


_FILES = (*TABLES, ".txt", ".text", ".json", ".md", ".log", ".xlsx", ".zip")
"""Endings by which a name is taken for that of a file, whether it is there or not."""


def rows(name: str, answers: Answers, *, top: int) -> Iterator[tuple[str, Prediction, dict[str, Any]]]:
    """What an input is called, its prediction and the row of it, with the `top` highest scores; of each sample of the input `name`."""
    several = len(answers.predictions) + len(answers.errors) > 1
    for prediction in answers.predictions:
        title = f"{name}, row {prediction.index + 1}" if several else name
        highest = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
        probability = prediction.probability
        row: dict[str, Any] = {
            "file": name,
            "index": prediction.index,
            "label": prediction.label,
            "probability": None if probability is None else round(probability, 4),
            "top": {label: float(f"{score:.4g}") for label, score in highest},
        }
        if prediction.spans is not None:
            del row["top"]
            row["spans"] = [{**asdict(span), "probability": round(span.probability, 4)} for span in prediction.spans]
        yield title, prediction, row


def line(predictor: Predictor, title: str, row: dict[str, Any]) -> str:
    """A row of `rows` in words."""
    if row["probability"] is None:
        place = f" → {row['map']}" if "map" in row else ""
        return f"{short(title, _PATH)}: {short(row['label'], _PATH)}{place}"
    others = "  ".join(f"{short(label)} {score:.2f}" for label, score in row["top"].items() if label != row["label"])
    most = 40 if predictor.signature.answers == "classes" else _PATH
    return f"{short(title, _PATH)}: {short(row['label'], most)} ({row['probability']:.2f})   {others}"

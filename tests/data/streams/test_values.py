"""Streams whose labels are numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mapsto import datasets, online, streams
from mapsto.errors import DomainError


def test_labels_of_a_csv_are_numbers_and_what_is_none_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("size;price\n1,5;10,5\n2;soon\n3;\n4;nan\n5;1.000,0\n")
    stream = streams.csv(file=str(file), target="price", task="values")
    assert stream.task == "values"
    (block,) = stream.open()
    assert block.y.dtype == np.float64
    assert block.y.tolist() == pytest.approx([10.5, math.nan, math.nan, math.nan, 1000.0], nan_ok=True)
    assert block.has_y.tolist() == [True, True, False, True, True]
    assert block.broken == {1: "a label that is no number"}


def test_a_learner_of_classes_refuses_numbers(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("size,price\n1,10\n")
    with pytest.raises(DomainError, match="labels are numbers"):
        online.softmax(stream=streams.csv(file=str(file), target="price", task="values"))(None)


def test_a_table_of_numbers_to_predict_is_replayed_as_such(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("size,price\n" + "".join(f"{n},{10 - n}\n" for n in range(8)))
    table = datasets.table(file=str(file), target="price", task="values", split="all", scale=False)
    stream = streams.replay(data=table, order="by_class", label_delay=3)
    assert stream.task == "values"
    blocks = list(stream.open(size=3))
    labels = [block.y[event] for block in blocks for event in range(len(block)) if block.has_y[event]]
    assert labels == sorted(labels) == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    assert all(block.y.dtype == np.float64 for block in blocks)
    assert streams.replay(data=datasets.digits(size=8)).task == "classes"

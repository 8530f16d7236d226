"""Fields of streams that cannot be meant are refused when they are given, in words that repeat no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mapsto import streams
from mapsto.errors import SpecError


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"partitions": (-1,)}, "partitions"),
        ({"partitions": (1, 1)}, "partitions"),
        ({"topics": ("",)}, "topics"),
        ({"brokers": " "}, "brokers"),
        ({"brokers": "host:9092,"}, "brokers"),
        ({"brokers": "user:hunter2@host:9092"}, "brokers"),
        ({"target": "y", "id": "y"}, "id"),
        ({"target": "y", "features": ("x", "y")}, "features"),
        ({"security": {"sasl.password": "env:"}}, "security"),
        ({"security": {"sasl.jaas.config": "password='hunter2';"}}, "security"),
    ],
)
def test_fields_of_a_topic(fields: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"brokers": "host:9092", "topics": ("doors",), **fields}
    with pytest.raises(SpecError, match=re.escape("streams.kafka")) as caught:
        streams.kafka(**given)
    assert field in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_secrets_of_the_environment_are_taken() -> None:
    streams.kafka(
        brokers="host:9092,other:9092", topics=("doors",), target="y", security={"sasl.jaas.config": "env:CONFIG"}
    )


@pytest.mark.parametrize("given", [(0, 10**9), (7, None)])
def test_a_range_beyond_a_file_is_refused(given: Any, tmp_path: Path) -> None:
    file = tmp_path / "poem.txt"
    file.write_text("To be")
    with pytest.raises(SpecError, match="holds 5"):
        next(streams.bytes(files=(str(file),), ranges=(given,)).open())
    assert sum(map(len, streams.bytes(files=(str(file),), ranges=((0, 5),)).open())) == 5
    assert not list(streams.bytes(files=(str(file),), ranges=((5, None),)).open())

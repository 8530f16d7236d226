"""A learner that is stopped anywhere on any stream, and opened again from its checkpoint as the store keeps it, comes to the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mapsto import discovery, online
from mapsto.context import Context
from mapsto.errors import MissingExtra
from mapsto.recipe.nodes import from_plain
from mapsto.testing.streams import model_digest

IMAGES = {"label_shift", "replay"}
"""Whose contract is on images, which need an encoder."""
NUMBERS = {"friedman", "movielens", "tastes"}
"""Whose labels are no classes."""
CASES = sorted({*discovery.entries("streams")} - IMAGES - NUMBERS)


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_learner_goes_on_to_the_same_model(name: str, tmp_path: Path) -> None:
    cls: Any = discovery.find("streams", name)
    try:
        fields = cls.contract_fields(tmp_path) if hasattr(cls, "contract_fields") else cls.contract
    except MissingExtra as error:
        pytest.skip(str(error))
    stream = from_plain(cls, fields)
    made = online.softmax(stream=stream, every=50)
    whole = Context(seed=0).apply(made, None)
    for stop in (1, 3):
        live = made.open(None, None, Context(seed=0))
        for number, block in enumerate(stream.open(size=13), start=1):
            live.advance(block)
            if number == stop:
                break
        state = {**live.snapshot(), "position": json.loads(json.dumps(live.position))}
        again = made.open(None, state, Context(seed=0))
        for block in stream.open(again.position, size=64):
            again.advance(block)
        assert again.step == whole.events
        assert model_digest(again.result()) == model_digest(whole)

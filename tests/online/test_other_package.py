"""An online learner and a stream of another package: one file each, found by entry points, under the same contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mapsto import discovery, testing
from mapsto.run.executor import execute
from mapsto.testing.lock import entries

LEARNER = '''"""The class that came most often so far is the answer, whatever the features; what a learner has to beat on a stream."""

import numpy as np

from mapsto.nn.online.loop import Online
from mapsto.nn.online.rule import Rule


class Most(Online):
    """The most frequent class."""

    @classmethod
    def rule(cls, fields):
        return Counts()


class Counts(Rule):
    def __init__(self):
        self.counts = np.zeros(0)

    def grow(self, inputs, classes):
        self.counts = np.pad(self.counts, (0, classes - len(self.counts)))

    def scores(self, row):
        return self.counts / max(self.counts.sum(), 1.0)

    def learn(self, row, label):
        self.counts[label] += 1

    def arrays(self):
        return {"counts": self.counts.copy()}

    def restore(self, arrays):
        self.counts = arrays["counts"].copy()
'''

STREAM = '''"""Days that are wet where the last one was."""

import numpy as np

from mapsto.data.streams._indexed import Indexed


class Weather(Indexed):
    """One number, two classes."""

    def identity(self):
        return "weather"

    def fingerprint(self):
        return "weather"

    def columns(self):
        return {"damp": "number"}

    def size(self):
        return 400

    def rows(self, start, stop):
        wet = np.sin(np.arange(start, stop)) > -0.5
        return {"damp": wet + 0.0}, np.where(wet, "wet", "dry").astype(object)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package `meteo`, as pip leaves it."""
    package, info = tmp_path / "meteo", tmp_path / "meteo-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "most.py").write_text(LEARNER)
    (package / "weather.py").write_text(STREAM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: meteo\nVersion: 1\n")
    points = {"mappings": "online.meteo_most = meteo.most:Most", "streams": "meteo_weather = meteo.weather:Weather"}
    (info / "entry_points.txt").write_text("".join(f"[mapsto.{group}]\n{line}\n\n" for group, line in points.items()))
    monkeypatch.syspath_prepend(str(tmp_path))

    def forget() -> None:
        discovery.entries.cache_clear()
        discovery.find.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.usefixtures("installed")
def test_they_are_found_and_keep_the_contract(tmp_path: Path) -> None:
    (case,) = testing.cases("online.meteo")
    case.cls.contract = {"stream": {"meteo_weather": {}}, "every": 100}
    case.check(tmp_path)
    (stream,) = testing.stream_cases("meteo")
    stream.check(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_recipe_runs_them_and_the_lock_is_as_it_was(tmp_path: Path) -> None:
    before = entries()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "schema: 1\nname: wet\nsteps:\n  - online.meteo_most: {stream: {meteo_weather: {label_delay: 3}}}\n"
    )
    model = execute(recipe, store=tmp_path / "store").value()
    assert model.signature.classes == ("wet", "dry")
    assert model.arrays["counts"].sum() == 400
    assert entries() == before

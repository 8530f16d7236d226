from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.toys import Norm, Toy, Walk

from mapsto.errors import StoreError
from mapsto.mapping import observe
from mapsto.run.executor import execute
from mapsto.run.result import summary_of
from mapsto.store import Store
from mapsto.store.index import Index

pytestmark = pytest.mark.usefixtures("trusted")


def filled(folder: Path, url: str | None = None) -> Index:
    store = Store(folder)
    index = Index(store, url)
    for seed in (0, 1):
        index.add(summary_of(execute(Toy() >> Walk(steps=3) >> observe(norm=Norm()), store=store, seed=seed)))
    return index


def content(index: Index) -> list[object]:
    return [(run, index.metrics(run["id"])) for run in index.runs()]


def test_runs_and_metrics(store_folder: Path) -> None:
    index = filled(store_folder)
    runs = index.runs(name="recipe")
    assert [run["seed"] for run in runs] == [1, 0]
    metrics = index.metrics(runs[0]["id"])
    assert [row["metric"] for row in metrics] == ["norm", "time"]
    assert index.seconds_of("tests.toys:Walk") is not None
    assert index.seconds_of("nothing") is None


def test_it_can_be_rebuilt_from_the_store(store_folder: Path) -> None:
    index = filled(store_folder)
    before = content(index)
    (store_folder / "index.sqlite").unlink()
    again = Index(Store(store_folder))
    assert again.rebuild() == 2
    assert content(again) == before


def test_adding_twice_changes_nothing(store_folder: Path) -> None:
    index = filled(store_folder)
    before = content(index)
    assert index.rebuild() == 2
    assert content(index) == before


def test_an_unreachable_database_is_named_without_its_password(store_folder: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Index(Store(store_folder), f"sqlite:///{store_folder}/nowhere/index.sqlite")
    assert "MAPSTO_DATABASE" in str(caught.value)


def test_postgresql(store_folder: Path) -> None:
    url = os.environ.get("MAPSTO_TEST_POSTGRES")
    if url is None:
        pytest.skip("MAPSTO_TEST_POSTGRES is not set to the URL of an empty PostgreSQL database")
    index = filled(store_folder, url)
    assert index.rebuild() == 2
    assert index.metrics(index.runs()[0]["id"])

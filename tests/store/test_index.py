from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from tests.command import mapsto
from tests.service.databases import as_server, postgresql
from tests.toys import Norm, Toy, Walk

from mapsto.errors import StoreError
from mapsto.mapping import observe
from mapsto.run import executor
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


RECIPE = """\
schema: 1
name: small
data:
  few: {subset: {data: {digits: {size: 8}}, per_class: 2}}
steps:
  - networks.conv4: {data: $few, width: 4, blocks: 1}
    observe: {size: {evaluate.size: {}}}
"""


def _stop(folder: Path) -> None:
    """End a server of `postgresql` as a power cut does."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    ending = [*as_server(), str(programs / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop"]
    subprocess.run(ending, check=True, capture_output=True)


def _start(folder: Path, url: str) -> None:
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    options = f"-h 127.0.0.1 -p {sql.make_url(url).port} -k {folder}"
    begin = [*as_server(), str(programs / "pg_ctl"), "-D", str(folder / "data"), "-o", options, "-w", "start"]
    subprocess.run(begin, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_postgresql_that_stops_in_mid_run_costs_the_index_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE, encoding="utf-8")
    with postgresql() as (url, folder):
        monkeypatch.setenv("MAPSTO_DATABASE", url)
        words = ("run", "small.yaml", "--store", "store", "--threads", 1)
        assert "does not know" not in mapsto(*words, "--out", "first", code=0).err
        index = Index(Store("store"))
        assert [run["name"] for run in index.runs()] == ["small"]
        runs = executor.execute

        def stopped(*given: Any, **named: Any) -> Any:
            found = runs(*given, **named)
            _stop(folder)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(executor, "execute", stopped)
            said = mapsto(*words, "--seed", 1, "--out", "second", code=0)
        assert "the index does not know of this run" in said.err
        assert "mapsto store index --store" in said.err
        assert Path("second/report.html").is_file()
        assert len(list(Store("store").runs())) == 2
        assert mapsto(*words, "--plan", code=2).err.count("cannot be opened") == 1, "said before there is any work"
        _start(folder, url)
        try:
            assert "indexed 2 runs" in mapsto("store", "index", "--store", "store", code=0).out
            assert sorted(run["seed"] for run in index.runs()) == [0, 1], "also by a connection that was cut off"
            long = {"id": "r" * 300, "name": "n" * 300, "seed": 0, "started": 1.0, "seconds": 1.0, "steps": []}
            index.add(long)
            assert len(index.runs(name=index.runs()[-1]["name"])[0]["id"]) == 200
        finally:
            _stop(folder)


def test_what_data_has_named_is_cut_to_what_databases_take(store_folder: Path) -> None:
    index = Index(Store(store_folder))
    ids = ["r" * 300 + "a", "r" * 300 + "b", "nul\0", "short"]
    for each in ids:
        index.add({"id": each, "name": "n" * 300, "seed": 0, "started": 1.0, "seconds": 1.0, "steps": []})
    found = [run["id"] for run in index.runs()]
    assert len(set(found)) == 4, "what is cut stays apart"
    assert {len(each) for each in found if each.startswith("r")} == {200}
    assert {"short", "nul␀"} < set(found)


def test_over_long_labels_are_refused_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    label = "x" * 101
    for old, new in (
        ("blocks: 1}\n", f"blocks: 1}}\n    as: {label}\n"),
        ("{size: {evaluate.size", f"{{{label}: {{evaluate.size"),
        ("name: small", f"name: {label}"),
        ("few", label),
    ):
        Path("long.yaml").write_text(RECIPE.replace(old, new), encoding="utf-8")
        said = mapsto("run", "long.yaml", "--store", "store", code=2).err
        assert "100" in said, new
    assert not Path("store/runs").exists()

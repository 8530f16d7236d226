"""What a run left behind and somebody has changed is the user's error: reports, records, and the files of runs."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.command import mapsto
from tests.mutations import mutated_json

from mapsto.errors import DataError, StoreError
from mapsto.store import Store
from mapsto_runtime.preprocessing.arrays import finite

RECIPE = """\
schema: 1
steps:
  - networks.mlp: {inputs: 4, widths: [3], classes: 2}
    as: small
    observe: {size: {evaluate.size: {}}}
targets:
  - {what: few, metric: small.size.parameters, goal: "<= 100"}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "r.yaml").write_text(RECIPE)
    mapsto("run", folder / "r.yaml", "--out", folder / "out", "--store", folder / "store", "--threads", 1, code=0)
    return folder


def code_of(*words: object) -> int:
    """The exit code of a command, which is right or the user's error."""
    try:
        mapsto(*words, code=0)
    except AssertionError:
        mapsto(*words, code=2)
        return 2
    return 0


@pytest.mark.parametrize("number", [pytest.param(20, id="20"), pytest.param(3000, id="3000", marks=pytest.mark.slow)])
def test_a_changed_report_is_the_users_error(made: Path, tmp_path: Path, number: int) -> None:
    rng = random.Random(number)
    text = (made / "out" / "report.json").read_text(encoding="utf-8")
    codes: list[int] = []
    for _ in range(number):
        (tmp_path / "report.json").write_bytes(mutated_json(text, rng))
        codes.append(code_of("report", tmp_path))
    assert 0 in codes
    assert 2 in codes
    (tmp_path / "report.json").write_text("[" * 100_000)
    assert "not a report" in mapsto("report", tmp_path, code=2).err


def test_a_changed_record_is_named(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    record = next(path for path in (store / "keys").rglob("*.json"))
    tree = json.loads(record.read_text())
    for name in ("created", "seconds", "inputs", "measured", "name", "kind", "version", "digest", "warnings"):
        for wrong in (None, "x", [1], -1, 1e308, {"a": 1}):
            if type(wrong) is type(tree[name]) and name not in ("created", "seconds", "digest"):
                continue
            if (name, wrong) == ("measured", {"a": 1}) or (name in ("inputs", "warnings") and wrong in ("x", {"a": 1})):
                continue  # texts and keys are sequences of texts, too
            record.write_text(json.dumps(tree | {name: wrong}))
            with pytest.raises(StoreError, match="a record is damaged"):
                Store(store).ls()
    for text in ("[" * 100_000, "[]", "{"):
        record.write_text(text)
        assert "a record is damaged" in mapsto("store", "ls", "--store", store, code=2).err


def test_a_changed_file_of_a_run_is_named(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    run = next((store / "runs").glob("*.json"))
    for text in ("[]", "1", "{}", '{"id": "x", "steps": [1]}', "[" * 100_000):
        run.write_text(text)
        assert "a run's file is damaged" in mapsto("store", "index", "--store", store, code=2).err


def test_names_that_are_no_utf8_and_names_that_no_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(b"r\xff.yaml")
    Path(odd).write_text(RECIPE)
    mapsto("run", odd, "--out", os.fsdecode(b"o\xff"), "--store", "store", "--threads", 1, code=0)
    report = json.loads(Path(os.fsdecode(b"o\xff"), "report.json").read_text(encoding="utf-8"))
    assert report["command"]["recipe"] == odd
    mapsto("report", os.fsdecode(b"o\xff"), code=0)
    assert "NUL byte" in mapsto("new", "x\0y", code=2).err
    assert "NUL byte" in mapsto("store", "ls", "--store", "x\0y", code=2).err


def test_a_store_that_cannot_be_reached_is_named() -> None:
    assert "the store cannot be reached" in mapsto("store", "ls", "--store", "http://127.0.0.1:9/x", code=2).err


def test_values_beyond_float32_are_not_called_missing() -> None:
    with pytest.raises(DataError, match=r"holds 1e\+300, beyond what float32 can hold"):
        finite(np.array([[1.0, 1e300]]), "x.npy")
    with pytest.raises(DataError, match="holds NaN or infinity"):
        finite(np.array([[1.0, np.nan]]), "x.npy")

"""The lock covers what decides results, and is no easier to pass than it should be."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import mapsto_runtime
from mapsto import discovery, testing
from mapsto.errors import SpecError
from mapsto.testing import lock

SOURCES = Path(lock.__file__).parents[1]
RUNTIME = Path(mapsto_runtime.__file__).parent
DECIDES_NOTHING = {
    "nn/profile/comparison.py",
    "nn/adapt/choice_of_network.py",
    "nn/evaluate/regression.py",
    "nn/export/training_digests.py",
    "nn/export/package_signing.py",
    "nn/explain/support.py",
    "data/privacy/settings.py",
    "data/privacy/masking.py",
    "data/privacy/pseudonyms.py",
    "data/privacy/field_rules.py",
    "native/json_numbers.py",
}
"""What is measured beside the result, what commands do before a recipe is run, after or beside it, how a service reads requests, and how it
masks what it stores: in no key."""


def test_the_lock_fits_the_code() -> None:
    assert testing.check_lock() == []


def test_every_file_that_decides_a_result_is_in_an_entry() -> None:
    groups = ("mappings", "data", "streams", "augment")
    named = [entry.path for group in groups for entry in discovery.entries(group).values()]
    walked = [path for folder in lock._WALKED.values() for path in (SOURCES / folder).iterdir() if path.is_file()]
    covered = {file for path in (*named, *walked) if path is not None for file in lock.files_of(path)}
    patterns = [
        (SOURCES / folder, suffix) for folder in ("nn", "data", "native") for suffix in ("*.py", "*.cpp", "*.h")
    ]
    patterns.append((RUNTIME / "preprocessing", "*.py"))
    files = {path for folder, suffix in patterns for path in folder.rglob(suffix)}
    code = {path for path in files if path.name != "__init__.py" or "\nfrom " in path.read_text(encoding="utf-8")}
    assert len(code) > 150
    assert {lock._title(path) for path in code - covered} == DECIDES_NOTHING


@pytest.fixture(name="place")
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of two entries of a mapping and a walked file, and code that is as it says."""
    code: dict[str, dict[str, Any]] = {
        "prune": {"prune.taylor": {"version": 1, "hash": "a", "defaults": {"macs": "null", "share": "0.5"}}},
        "kernels": {"conv.cpp": {"hash": "b"}},
    }
    monkeypatch.setattr(lock, "_lock_folder", lambda: tmp_path / "locks")
    monkeypatch.setattr(lock, "entries", lambda: copy.deepcopy(code))
    lock.write_lock("")
    monkeypatch.setattr(lock, "CODE", code, raising=False)
    return tmp_path / "locks"


def code_of() -> dict[str, dict[str, Any]]:
    return lock.CODE  # type: ignore[attr-defined]  # put there by the fixture


def test_a_change_needs_a_version_or_a_reason_which_is_kept(place: Path) -> None:
    taylor = code_of()["prune"]["prune.taylor"]
    taylor["hash"] = "c"
    (said,) = lock.check_lock()
    assert said.startswith("prune.taylor: its code has changed")
    with pytest.raises(SpecError, match=r"changed without a new version: prune\.taylor"):
        lock.write_lock(" ")
    lock.write_lock("renamed a helper")
    taylor["hash"] = "d"
    lock.write_lock("a faster loop")
    assert json.loads((place / "prune.json").read_text())["prune.taylor"]["reasons"] == [
        "renamed a helper",
        "a faster loop",
    ]
    taylor |= {"hash": "e", "version": 2}
    lock.write_lock("")
    assert "reasons" not in json.loads((place / "prune.json").read_text())["prune.taylor"]
    assert lock.check_lock() == []


def test_no_reason_excuses_a_changed_default(place: Path) -> None:
    taylor = code_of()["prune"]["prune.taylor"]
    taylor |= {"hash": "c", "defaults": {"macs": "null", "share": "0.25"}}
    before = (place / "prune.json").read_bytes()
    with pytest.raises(SpecError, match=r"prune\.taylor \(the default of share has changed"):
        lock.write_lock("it is better")
    assert (place / "prune.json").read_bytes() == before
    taylor["version"] = 2
    lock.write_lock("")
    assert lock.check_lock() == []


def test_a_new_field_and_a_new_file_change_nothing_else(place: Path) -> None:
    before = (place / "kernels.json").read_bytes()
    code = code_of()
    code["prune"]["prune.taylor"] |= {"hash": "c", "defaults": {"macs": "null", "share": "0.5", "rounds": "1"}}
    code["prune"]["prune.mine"] = {"version": 1, "hash": "m"}
    assert lock.check_lock() == [
        "prune.mine: new, not locked yet",
        "prune.taylor: its code has changed; raise its version, or re-lock with a reason",
    ]
    lock.write_lock("a field that changes nothing at its default")
    assert (place / "kernels.json").read_bytes() == before
    del code["kernels"]
    assert lock.check_lock() == ["conv.cpp: locked, but gone"]
    lock.write_lock("")
    assert not (place / "kernels.json").exists()

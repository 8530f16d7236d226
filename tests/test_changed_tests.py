"""`make test-changed` finds the tests that a change bears on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="script", scope="module")
def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("changed_tests", ROOT / "scripts" / "changed_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["changed_tests"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "chosen", "left"),
    [
        ("src/mapsto/mappings/prune/taylor.py", "test_prune.py", "test_quantize"),
        ("src/mapsto/mappings/online/softmax.py", "test_learning.py", "test_prune"),
        ("src/mapsto/cli/doctor.py", "test_cli.py", "test_prune"),
        ("recipes/demo.yaml", "test_recipes.py", "test_quantize"),
        ("benchmarks/results/engine.json", "test_benchmarks.py", "test_quantize"),
    ],
)
def test_a_change_chooses_its_tests(script: ModuleType, changed: str, chosen: str, left: str) -> None:
    found = script.selected({ROOT / changed})
    files = [name for name in found if "::" not in name]
    assert any(name.endswith(chosen) for name in files)
    assert not any(left in name for name in files)
    assert not any("::" in name for name in found) or "mappings" in changed or "data" in changed


def test_a_mapping_chooses_every_promise_of_its_own(script: ModuleType) -> None:
    found = [name for name in script.selected({ROOT / "src/mapsto/mappings/prune/taylor.py"}) if "::" in name]
    assert len(found) == len(script.promises())
    assert all("[prune.taylor-" in name for name in found)


def test_what_all_stands_on_chooses_all(script: ModuleType) -> None:
    assert script.selected({ROOT / "src/mapsto/kinds/frozen.py"}) is None
    assert script.selected({ROOT / "tests/toys.py"}) is None
    assert script.selected({ROOT / (".git" + "attributes")}) == []

"""The workflow of releases: what it may do, and each of its commands, run here as far as there is no GitHub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import mapsto_runtime

ROOT = Path(__file__).parents[1]
ONLY_THERE = ("gh release create", 'make tests PYTEST="-m slow tests/runtime/test_runtime.py"')
"""Needs GitHub; is a test of its own."""


def workflow() -> dict[Any, Any]:
    return yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))


def commands() -> list[str]:
    return [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]


def test_it_runs_for_tags_with_no_more_rights_than_each_job_needs() -> None:
    found = workflow()
    assert found[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}, "YAML reads `on` as true"
    assert found["permissions"] == {"contents": "read"}
    rights = {name: job.get("permissions") for name, job in found["jobs"].items()}
    assert rights == {"build": None, "sign": {"id-token": "write"}, "publish": {"contents": "write"}}
    for name in ("sign", "publish"):
        used = [step.get("uses", "").partition("@")[0] for step in found["jobs"][name]["steps"]]
        assert "actions/checkout" not in used, "no code of the repository runs beside those rights"
    assert found["jobs"]["sign"]["needs"] == "build"
    assert found["jobs"]["publish"]["needs"] == "sign"
    assert found["jobs"]["publish"]["if"] == "github.ref_type == 'tag'"


def test_every_action_has_a_version_and_comes_from_whom_ci_takes_them() -> None:
    uses = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"(actions|sigstore)/[\w-]+@v\d+(\.\d+)*", each) for each in uses)


def test_what_is_signed_is_what_is_published() -> None:
    steps = workflow()["jobs"]["sign"]["steps"]
    signed = next(step["with"]["inputs"] for step in steps if step.get("uses", "").startswith("sigstore/"))
    assert signed.split() == ["./dist/*.whl", "./dist/*.tar.gz", "./dist/*.cdx.json"]


def test_every_command_is_known_here() -> None:
    tried = {'python scripts/release_version.py "$GITHUB_REF_NAME"', "make dist", "make sbom"}
    others = [each for each in commands() if each not in tried]
    assert len(others) == len(ONLY_THERE)
    assert all(each.startswith(ONLY_THERE) for each in others)


def test_the_tag_must_be_the_version() -> None:
    (command,) = (each for each in commands() if "release_version" in each)
    for tag, code in ((f"v{mapsto_runtime.__version__}", 0), ("v99.0", 2), ("", 2)):
        environment = os.environ | {
            "GITHUB_REF_NAME": tag,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what Git knows of, with its wheels made by the workflow's command."""
    folder = tmp_path_factory.mktemp("release") / "mapsto"
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    for name in filter(None, known.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    make(folder, "make dist")
    return folder


def make(folder: Path, command: str, *more: str) -> None:
    assert command in commands()
    venv = Path(sys.executable).parents[1]
    done = subprocess.run(
        [*command.split(), f"VENV={venv}", f"PYTHON={sys.executable}", *more],
        cwd=folder, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_wheels_are_built(checkout: Path) -> None:
    names = sorted(path.name for path in (checkout / "dist").iterdir())
    version = re.escape(mapsto_runtime.__version__)
    expected = (
        rf"mapsto-{version}-.*\.whl",
        rf"mapsto-{version}\.tar\.gz",
        rf"mapsto_runtime-{version}-py3-none-any\.whl",
    )
    for pattern in (*expected, rf"mapsto_runtime-{version}\.tar\.gz"):
        assert any(re.fullmatch(pattern, name) for name in names), names
    with zipfile.ZipFile(next((checkout / "dist").glob("mapsto-*.whl"))) as wheel:
        assert "mapsto/cli/main.py" in wheel.namelist()
        metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        assert "Provides-Extra: sign" in wheel.read(metadata).decode()


@pytest.mark.slow
@pytest.mark.skipif(
    "MAPSTO_TEST_INSTALL" not in os.environ, reason="MAPSTO_TEST_INSTALL is not set: it installs torch anew"
)
def test_the_sbom_names_what_the_wheels_bring(checkout: Path) -> None:
    make(checkout, "make sbom", f"TORCH_INDEX={os.environ.get('TORCH_INDEX', '')}")
    found = json.loads((checkout / "dist" / "mapsto.cdx.json").read_text(encoding="utf-8"))
    assert found["bomFormat"] == "CycloneDX"
    names = {each["name"].lower() for each in found["components"]}
    assert {"mapsto-runtime", "torch", "numpy", "onnxruntime"} <= names

"""SIGKILL anywhere: the same command ends with the same digests."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[1] / "recipes" / "every_step.yaml"


def start(folder: Path, recipe: str, *more: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"MAPSTO_STORE": str(folder / "store"), "MAPSTO_CHECKPOINT_SECONDS": "0.5"}
    command = [sys.executable, "-m", "mapsto", "run", recipe, "--out", str(folder / "out"), "--threads", "1", *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(run: subprocess.Popen[bytes], folder: Path) -> list[str]:
    _, err = run.communicate(timeout=1800)
    assert run.returncode == 0, err.decode()
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return [f"{step['path']} {step['digest']}" for step in report["steps"]]


def killed_at(folder: Path, recipe: str, seconds: float) -> bool:
    """Whether the run was killed before it ended by itself."""
    run = start(folder, recipe)
    try:
        run.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.communicate()
        return True
    run.communicate()
    return False


def undisturbed(folder: Path, recipe: str) -> tuple[list[str], float]:
    began = time.monotonic()
    digests = finish(start(folder, recipe), folder)
    return digests, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_every_kind_of_step(tmp_path: Path) -> None:
    whole, took = undisturbed(tmp_path / "whole", str(RECIPE))
    rng = random.Random(0)
    folder, kills = tmp_path / "killed", 0
    for attempt in range(60):
        killed = killed_at(folder, str(RECIPE), rng.uniform(1.5, max(3.0, took / 4)))
        kills += killed
        if kills == 20:
            break
        if not killed:
            assert finish(start(folder, str(RECIPE)), folder) == whole
            folder = tmp_path / f"killed-{attempt}"
    assert kills == 20
    assert finish(start(folder, str(RECIPE)), folder) == whole


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_three_kills_of_the_demo(tmp_path: Path) -> None:
    whole, took = undisturbed(tmp_path / "whole", "demo")
    rng = random.Random(1)
    for _ in range(3):
        killed_at(tmp_path / "killed", "demo", rng.uniform(5, took / 3))
    assert finish(start(tmp_path / "killed", "demo"), tmp_path / "killed") == whole


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_kill_and_two_runs_at_once(tmp_path: Path) -> None:
    quick = [str(RECIPE), "--quick"]
    folder = tmp_path / "shared"
    run = start(folder, *quick)
    time.sleep(5)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    one, two = start(folder, *quick), start(folder, *quick, "--out", str(tmp_path / "shared" / "two"))
    first = finish(one, folder)
    _, err = two.communicate(timeout=300)
    assert two.returncode == 0, err.decode()
    report = json.loads((folder / "two" / "report.json").read_text(encoding="utf-8"))
    assert [f"{step['path']} {step['digest']}" for step in report["steps"]] == first

"""The command: what it refuses, and that it serves until it is ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mapsto.run.metrics_log import MetricsLog
from tests.command import mapsto


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    assert "there is no such folder" in mapsto("studio", tmp_path / "runs", code=2).err
    said = mapsto("studio", tmp_path, "--host", "0.0.0.0", code=2).err
    assert "'0.0.0.0' is no such address" in said
    assert "ssh -L" in said


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = mapsto("studio", tmp_path, "--port", taken.getsockname()[1], code=2).err
    assert "cannot be listened on" in said
    assert "mapsto studio --port 0" in said


@pytest.mark.slow
def test_it_serves_until_it_is_ended_and_answers_to_its_own_names_alone(runs: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "mapsto", "studio", str(runs), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert started.stdout is not None
        address = started.stdout.readline().split()[2].rstrip(";")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"/run/runs/first" in answer.read()
        other = urllib.request.Request(address, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(other, timeout=10)
        assert refused.value.code == 421
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=10)
    finally:
        started.kill()
    assert "ended" in said
    assert "Traceback" not in said


def test_a_log_can_be_read_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("mapsto.run.metrics_log.time.monotonic", lambda: now)
    with MetricsLog(tmp_path, []) as write:
        for step in range(3):
            now += 2.0
            write(step, {"loss": 1.0})
            assert (tmp_path / "metrics.csv").read_text("utf-8").splitlines()[-1] == f"{step},1.0"

"""A process's metrics as files for other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto.run.metrics_log import MetricsLog


def test_tensorboard_reads_the_events_that_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, [(1, {"train_loss": 0.5})]) as write:
        write(7, {"train_loss": 0.25, "accuracy": 90.0})
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(each.step, each.value) for each in found.Scalars("train_loss")] == [(1, 0.5), (7, 0.25)]
    assert [(each.step, each.value) for each in found.Scalars("accuracy")] == [(7, 90.0)]
    assert (tmp_path / "metrics.csv").read_text() == "step,train_loss,accuracy\n1,0.5,\n7,0.25,90.0\n"

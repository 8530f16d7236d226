"""Two processes that share the tasks of each step come to what one comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mapsto.store import Store

RECIPE = """\
schema: 1
name: team
data:
  digits: {digits: {size: 16}}
  train_tasks: {episodes: {data: $digits, ways: 3, shots: 1, queries: 3}}
steps:
  - networks.conv4: {data: $digits, width: 4}
  - meta.maml: {tasks: $train_tasks, steps: 4, tasks_per_step: 4, inner_steps: 2, inner_rate: 0.1, engine: loop, optimizer: sgd}
    as: learner
    observe: {digits: {evaluate.episodes: {tasks: $train_tasks, episodes: 5}}}
"""


WORK = """\
import sys
import torch
from mapsto import datasets, meta, networks
from mapsto.context import Context, Numerics

digits = datasets.digits(size=16)
train_tasks = datasets.episodes(data=digits, ways=3, shots=1, queries=3)
processes, out = int(sys.argv[1]), sys.argv[2]
train = meta.maml(tasks=train_tasks, steps=3, tasks_per_step=4 // processes, inner_steps=2, inner_rate=0.1, engine="loop")
numerics = Numerics(world_size=processes, strategy="ddp" if processes > 1 else "auto", threads=1)
context = Context(key="the same in both", numerics=numerics)
learner = train.apply(networks.conv4(data=digits, width=4)(seed=0), context)
if context.fabric.global_rank == 0:
    torch.save(dict(learner.tensors), out)
assert "torchmetrics" not in sys.modules, "seconds, each time anything is trained"
"""


def start(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"MASTER_ADDR": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    work = tmp_path / "work.py"
    work.write_text(WORK, encoding="utf-8")
    start(str(work), "1", str(tmp_path / "one.pt"))
    start(str(work), "2", str(tmp_path / "two.pt"))
    alone, together = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for name, tensor in alone.items():
        assert torch.allclose(tensor, together[name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_of_two_processes_writes_the_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = [
        "-m",
        "mapsto",
        "run",
        str(tmp_path / "recipe.yaml"),
        "--store",
        str(tmp_path / "store"),
        "--threads",
        "1",
    ]
    for _ in range(2):
        start(*command, "--out", str(tmp_path / "out"), "--processes", "2")
        report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
        assert [step["name"] for step in report["steps"]] == ["networks.conv4", "meta.maml", "evaluate.episodes"]
    assert all(step["hit"] for step in report["steps"])
    assert len(list((tmp_path / "store" / "runs").iterdir())) == 2
    assert not Store(tmp_path / "store").verify()

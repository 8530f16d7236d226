"""Training on images in shards: killed in the middle of an epoch it goes on, and two processes come to what one comes to."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tests.imagenet_folder import imagenet

RECIPE = """\
schema: 1
name: large
data:
  train: {{images: {{folder: {folder}, split: train, fit: crop, kept: shards, skip_broken: true}}}}
  val: {{images: {{folder: {folder}, split: validation, fit: crop, kept: shards}}}}
steps:
  - networks.conv4: {{data: $train, classes: data, width: 8, size: 32}}
  - train.supervised: {{data: $train, validation: $val, epochs: 6, batch_size: 8, augment: [flip: {{}}, crop: {{padding: 2}}]}}
    as: trained
    observe: {{val: {{evaluate.accuracy: {{data: $val, top: 5}}}}}}
"""
EPOCH = 45


def start(folder: Path, processes: int) -> subprocess.Popen[str]:
    environment = os.environ | {"MAPSTO_CHECKPOINT_SECONDS": "0.05", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-m", "mapsto", "run", str(folder.parent / "recipe.yaml"), "--threads", "1"]
    command += ["--store", str(folder / "store"), "--out", str(folder / "out"), "--processes", str(processes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **pipes)


def finish(run: subprocess.Popen[str], folder: Path) -> tuple[list[str], str]:
    told, _ = run.communicate(timeout=400)
    assert run.returncode == 0, told
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    return [f"{step['path']} {step['digest']}" for step in report["steps"]], told


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_the_middle_of_an_epoch_it_goes_on(processes: int, tmp_path: Path) -> None:
    photos = imagenet(tmp_path / "photos", train=60)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(folder=photos), encoding="utf-8")
    whole, _ = finish(start(tmp_path / "whole", processes), tmp_path / "whole")
    killed = tmp_path / "killed"
    run = start(killed, processes)
    until, seen = time.monotonic() + 300, set[int]()
    while len(seen) < 4 and time.monotonic() < until and run.poll() is None:  # the first checkpoint is of the beginning
        with suppress(FileNotFoundError):
            seen |= {path.stat().st_mtime_ns for path in (killed / "store").glob("states/*")}
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    digests, told = finish(start(killed, processes), killed)
    found = re.search(r"train\.supervised goes on from item (\d+)", " ".join(told.split()))
    assert found is not None, told
    assert int(found[1]) % EPOCH, "in the middle of an epoch"
    assert digests == whole


WORK = """\
import sys
import torch
from mapsto import datasets, networks, train
from mapsto.context import Context, Numerics
from mapsto.data.io import image_shards

folder, processes, out, statistics = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "kept"
image_shards.PER_SHARD = 16
read = []
known = image_shards._ShardedImages.read
image_shards._ShardedImages.read = lambda self, places: (read.append(len(places)), known(self, places))[1]
data = datasets.images(folder=folder, split="train", fit="crop", size=32, kept="shards")
network = networks.conv4(data=data, classes="data", width=8)(seed=0)
del read[:]
work = train.supervised(data=data, epochs=2, batch_size=8, keep_statistics=statistics, optimizer="sgd", learning_rate=0.02)
numerics = Numerics(world_size=processes, strategy="ddp" if processes > 1 else "auto", threads=1)
context = Context(key="the same in both", numerics=numerics)
with context.giving(network):
    live, items = work.open(network, None, context), work.items(network, context)
    while not live.done:
        context.seed_everything(live.step)
        live.advance(items[live.step])
if context.fabric.global_rank == 0:
    torch.save({"tensors": dict(live.result().tensors), "rows": sum(read), "steps": live.step}, out)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_read_half_each_and_come_to_the_same(tmp_path: Path) -> None:
    photos = imagenet(tmp_path / "photos", train=8, odd=False)
    work = tmp_path / "work.py"
    work.write_text(WORK, encoding="utf-8")
    found = {}
    for processes in (1, 2):
        for statistics in ("kept", "own"):
            out = tmp_path / f"{processes}-{statistics}.pt"
            command = [sys.executable, str(work), str(photos), str(processes), str(out), statistics]
            done = subprocess.run(
                command,
                env=os.environ | {"MASTER_ADDR": "127.0.0.1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=250,
            )
            assert done.returncode == 0, done.stderr
            found[processes, statistics] = torch.load(out, weights_only=True)
    for statistics in ("kept", "own"):
        one, two = found[1, statistics], found[2, statistics]
        assert one["steps"] == two["steps"] == 12
        assert one["rows"] == 2 * two["rows"] == 12 * 8
        apart = max(float((one["tensors"][name] - two["tensors"][name]).abs().max()) for name in one["tensors"])
        if statistics == "kept":
            assert apart < 1e-5, "gradients are the mean over all"
        else:
            assert apart > 1e-4, "each process's batch norm sees its own half"

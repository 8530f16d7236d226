"""What the engine costs: a step's overhead, an advance's overhead, digests and the store, each beside the plain way.

mapsto bench engine
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import safetensors.torch
import torch

from mapsto import kinds
from mapsto.context import Context
from mapsto.mapping import Mapping
from mapsto.nn.networks.vgg import vgg
from mapsto.process import Live, Process, Rows, State
from mapsto.run.executor import execute
from mapsto.store import Store
from mapsto.store.digest import digest_bytes, tensor_bytes


class Nothing(Mapping[kinds.Network, kinds.Network]):
    """Gives its input."""

    index: int = 0
    """Tells one from another."""

    def apply(self, value: kinds.Network, ctx: Context) -> kinds.Network:
        return value


class Idle(Process[kinds.Network, kinds.Network]):
    """Advances without work."""

    steps: int = 1000
    """Items."""

    def items(self, value: kinds.Network, ctx: Context) -> Any:
        return range(self.steps)

    def open(self, value: kinds.Network, state: State | None, ctx: Context) -> Live[kinds.Network]:
        return _Idling(value, 0 if state is None else state["step"], self.steps)


class _Idling(Live[kinds.Network]):
    def __init__(self, value: kinds.Network, step: int, total: int) -> None:
        self.value = value
        self.step, self.total, self.done = step, total, step >= total

    def advance(self, item: int) -> Rows:
        self.step += 1
        self.done = self.step >= (self.total or 0)
        return [(self.step, {"loss": 1.0})]

    def snapshot(self) -> State:
        return {"step": self.step}

    def result(self) -> kinds.Network:
        return self.value


def main(quick: bool = False) -> dict[str, Any]:
    torch.set_num_threads(1)
    rounds = 3 if quick else 7
    steps = 20 if quick else 100
    from mapsto import networks

    source = networks.conv4(channels=1, size=28, width=8)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        chain = source
        for index in range(steps):
            chain = chain >> Nothing(index=index)
        fresh, hits = [], []
        for turn in range(rounds):
            for times in (fresh, hits):
                began = time.perf_counter()
                execute(chain, store=Path(folder) / str(turn))
                times.append((time.perf_counter() - began) / (steps + 1) * 1e3)
        rows.append(
            {
                "what": "a step that does nothing, computed",
                "ms": statistics.median(fresh),
                "low": min(fresh),
                "high": max(fresh),
            }
        )
        rows.append(
            {"what": "a step that is a hit", "ms": statistics.median(hits), "low": min(hits), "high": max(hits)}
        )

        count = 2000 if quick else 20000
        idle = []
        for turn in range(rounds):
            run = execute(source >> Idle(steps=count + turn), store=Path(folder) / "idle")
            idle.append(run.steps[-1].seconds / count * 1e6)
        rows.append(
            {"what": "an advance that does nothing", "us": statistics.median(idle), "low": min(idle), "high": max(idle)}
        )

        module = vgg(depth=16, classes=10)
        tensors = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        network = kinds.Network(
            arch=kinds.Factory(name="mapsto.nn.networks.vgg:vgg", arguments={"depth": 16, "classes": 10}),
            tensors=tensors,
            signature=kinds.Signature(
                inputs=(kinds.TensorSpec(name="input", dtype="float32", shape=("N", 1)),),
                outputs=(kinds.TensorSpec(name="output", dtype="float32", shape=("N", 1)),),
            ),
        )
        place = Path(folder)
        times = common.side_by_side(
            {
                "sha256 of the bytes": lambda: hashlib.sha256(
                    b"".join(t.numpy().tobytes() for t in tensors.values())
                ).digest(),
                "digest": lambda: [digest_bytes(tensor_bytes(t)) for t in tensors.values()],
                "safetensors save": lambda: safetensors.torch.save_file(tensors, place / "peer.safetensors"),
                "torch.save": lambda: torch.save(tensors, place / "peer.pt"),
                "store save": lambda: Store(tempfile.mkdtemp(dir=folder)).save(network),
            },
            rounds=rounds,
        )
        held = Store(place / "held")
        digest = held.save(network)
        times |= common.side_by_side(
            {
                "safetensors load": lambda: safetensors.torch.load_file(place / "peer.safetensors"),
                "torch.load": lambda: torch.load(place / "peer.pt", weights_only=True),
                "store load, first (verified)": lambda: Store(place / "held").load(digest),
                "store load, again": lambda: held.load(digest),
            },
            rounds=rounds,
        )
        bases = {
            "digest": "sha256 of the bytes",
            "store save": "safetensors save",
            "store load, first (verified)": "safetensors load",
            "store load, again": "safetensors load",
        }
        for name, seconds in times.items():
            row = {
                "what": f"{name}, VGG-16, {size / 1e6:.0f} MB",
                "ms": statistics.median(seconds) * 1e3,
                "low": min(seconds) * 1e3,
                "high": max(seconds) * 1e3,
            }
            if name in bases:
                spread = common.ratio(seconds, times[bases[name]])
                row |= {
                    "beside": bases[name],
                    "times as long": spread["ratio"],
                    "ratio low": spread["low"],
                    "ratio high": spread["high"],
                }
            rows.append(row)

    listing = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mapsto", "list"], check=True, capture_output=True)
        listing.append(time.perf_counter() - began)
    rows.append(
        {
            "what": "mapsto list, whole process",
            "ms": statistics.median(listing) * 1e3,
            "low": min(listing) * 1e3,
            "high": max(listing) * 1e3,
        }
    )
    tree = common.result(
        "engine",
        conditions={"rounds": rounds, "steps": steps, "threads": 1, "quick": quick},
        rows=rows,
        targets=[common.target("mapsto list, seconds", "<= 0.5", statistics.median(listing))],
    )
    return common.finished(tree, quick=quick)


if __name__ == "__main__":
    main("--quick" in sys.argv)

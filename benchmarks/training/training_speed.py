"""A training step on the CPU beside PyTorch loops, compiled ones too: same network, batch and optimiser, taken in turn.

mapsto bench training_speed
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from typing import Any, cast

import common
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mapsto.context import Context
from mapsto.data.sets.digits import Digits
from mapsto.mappings.train.supervised import Supervised
from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.networks.conv4 import conv4
from mapsto.nn.networks.vgg import vgg
from mapsto.nn.train.loop import Training, TrainingPlan

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv4-64, 256 images of 1 × 28 × 28": (lambda: conv4(channels=1, size=28, classes=64), (256, 1, 28, 28)),
    "Conv4-64, 128 images of 3 × 32 × 32": (lambda: conv4(channels=3, size=32, classes=64), (128, 3, 32, 32)),
    "R2-D2's Conv4, 128 images of 3 × 32 × 32": (
        lambda: conv4(channels=3, size=32, width=[96, 192, 384, 512], classes=64),
        (128, 3, 32, 32),
    ),
    "the demo's VGG, 256 images of 1 × 32 × 32": (
        lambda: vgg(plan=[[32], [64, 64], [128, 128], [256]], channels=1, size=32, classes=64),
        (256, 1, 32, 32),
    ),
    "VGG-16, 128 images of 3 × 32 × 32": (lambda: vgg(depth=16, classes=10), (128, 3, 32, 32)),
}
"""What is trained → its network and a batch's shape."""
GOAL = 1.2
PEERS = ("plain", "channels last", "torch.compile")
"""PyTorch loops; the compiled one is compiled before the clock starts, with channels last."""


def main(quick: bool = False) -> dict[str, Any]:
    rounds = 2 if quick else 9
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for what, (make, shape) in list(CASES.items())[: 1 if quick else None]:
        torch.manual_seed(0)
        module, inputs = make(), torch.randn(shape)
        labels = torch.arange(shape[0]) % 10
        steps = {
            "plain": _plain(copy.deepcopy(module), inputs, labels),
            "channels last": _plain(
                copy.deepcopy(module).to(memory_format=torch.channels_last),
                inputs.to(memory_format=torch.channels_last),
                labels,
            ),
            "torch.compile": _plain(
                _compiled(copy.deepcopy(module).to(memory_format=torch.channels_last)),
                inputs.to(memory_format=torch.channels_last),
                labels,
            ),
            "ours": _ours(module, inputs, labels),
        }
        times = common.side_by_side(steps, rounds=rounds)
        for peer in PEERS:
            found = common.ratio(times[peer], times["ours"])
            rows.append(
                {
                    "what": what,
                    "ms": statistics.median(times["ours"]) * 1e3,
                    "low": min(times["ours"]) * 1e3,
                    "high": max(times["ours"]) * 1e3,
                    "beside": f"a PyTorch loop, {peer}, takes",
                    "times as long": found["ratio"],
                    "ratio low": found["low"],
                    "ratio high": found["high"],
                }
            )
        best = min(common.ratio(times[peer], times["ours"])["ratio"] for peer in ("plain", "channels last"))
        compiled = common.ratio(times["torch.compile"], times["ours"])["ratio"]
        targets.append(common.target(f"times the steps of the better PyTorch loop: {what}", f">= {GOAL}", best))
        targets.append(common.target(f"times the steps of torch.compile, channels last: {what}", ">= 1", compiled))
    tree = common.result(
        "training_speed",
        conditions={"rounds": rounds, "optimizer": "sgd, momentum 0.9", "kernels": compiled_kernels(), "quick": quick},
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


def _compiled(module: nn.Module) -> nn.Module:
    """The module as TorchInductor compiles it, forward and backward."""
    return cast("nn.Module", torch.compile(module))


def _plain(module: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    module.train()

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(module(inputs), labels).backward()
        optimizer.step()

    return step


def _ours(module: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    mapping = Supervised(data=Digits(), learning_rate=0.01)
    training = Training(
        module,
        None,
        plan=TrainingPlan(optimisation=mapping, steps=10_000, epoch=10_000),
        fabric=Context(seed=0).fabric,
        loss=lambda call, _item: cross_entropy(call(inputs), labels),
        result=lambda load: load(module),
        fused=True,
    )
    return lambda: training.advance(None) and None

"""Small networks whose channels can be pruned, small data, and a criterion's importance, for the tests of pruning."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mapsto.context import Context, Numerics
from mapsto.data.sets.digits import Digits
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.subset import Subset
from mapsto.kinds import Adaptation, Dataset, Network, Preprocessing, Samples
from mapsto.nn.network.build import network_of
from mapsto.nn.prune.dependency_groups import Group, find_groups

DATA = Subset(data=Digits(), per_class=8)
TASKS = EpisodesOf(data=DATA, ways=3, shots=1, queries=3)
SIZE = 8


def context(seed: int = 0) -> Context:
    return Context(seed=seed, numerics=Numerics(threads=1))


@cache
def vgg(*plan: tuple[int, ...], classes: int | None = 10) -> Network:
    """A VGG whose batch statistics are as random as its weights, so that no channel is like another."""
    torch.manual_seed(0)
    made = network_of(
        "mapsto.nn.networks.vgg:vgg",
        {"plan": [list(stage) for stage in plan or ((4,), (6,))], "channels": 1, "size": SIZE, "classes": classes},
        Preprocessing(channels=1, size=(SIZE, SIZE)),
        classes=tuple(map(str, range(classes))) if classes else None,
    )
    module = made.module()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.3)
    return made.with_module(module, adaptation=None if classes else Adaptation(method="centroid"))


def changed(network: Network, **tensors: Any) -> Network:
    """The network with other values in some of its tensors; dots in their names are written ``__``."""
    new = {name.replace("__", "."): torch.as_tensor(values) for name, values in tensors.items()}
    module = network.module()
    module.load_state_dict({**module.state_dict(), **new})
    return network.with_module(module)


def groups_of(network: Network) -> tuple[nn.Module, tuple[Group, ...]]:
    module = network.module()
    return module, find_groups(module, torch.zeros(network.signature.input_shape(2))).groups


def importance(criterion: Any, network: Network, ctx: Context | None = None) -> dict[str, NDArray[np.float64]]:
    module, groups = groups_of(network)
    return dict(criterion.importance(network, ctx or context())(module, groups))


def widths(network: Network) -> list[int]:
    return [part.out_channels for part in network.module().modules() if isinstance(part, nn.Conv2d)]


class Odd(Dataset):
    """Digits with something wrong."""

    what: str = "nan"
    """``nan``, ``empty``, ``one`` (sample), ``numbers`` (targets instead of classes) or ``two`` (classes)."""

    def fingerprint(self) -> str:
        return f"odd {self.what}"

    def open(self) -> Samples:
        samples = DATA.open()
        if self.what == "nan":
            inputs = samples.inputs.astype(np.float32) / 255
            inputs[3, 0, 0, 0] = np.nan
            return dataclasses.replace(samples, inputs=inputs)
        if self.what in ("empty", "one"):
            return samples.take(np.arange(self.what == "one"))
        if self.what == "numbers":
            return dataclasses.replace(samples, labels=samples.labels.astype(np.float32))
        return dataclasses.replace(samples, classes=("a", "b"), labels=samples.labels % 2)

"""Small mappings that the engine's tests run: fast, deterministic, and observable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from mapsto import process
from mapsto.context import Context
from mapsto.kinds import Dataset, Factory, Metric, Network, Preprocessing, Report, Samples, Signature, TensorSpec
from mapsto.mapping import DataSource, Mapping, NetworkSource
from mapsto.process import Live, Process, State

CALLS: list[str] = []


def linear(*, inputs: int, outputs: int) -> nn.Module:
    return nn.Linear(inputs, outputs)


class Toy(Mapping[None, Network]):
    """A linear network."""

    inputs: int = Field(default=3, ge=1)
    """Features."""
    outputs: int = Field(default=2, ge=1)
    """Classes."""

    def apply(self, value: None, ctx: Context) -> Network:
        CALLS.append("toy")
        arch = Factory(name="tests.toys:linear", arguments={"inputs": self.inputs, "outputs": self.outputs})
        module = arch.load()(**arch.arguments)
        return Network(
            arch=arch,
            tensors={k: v.detach() for k, v in module.state_dict().items()},
            signature=Signature(
                inputs=(TensorSpec(name="input", dtype="float32", shape=("N", self.inputs)),),
                outputs=(TensorSpec(name="output", dtype="float32", shape=("N", self.outputs)),),
                preprocessing=Preprocessing(kind="none"),
            ),
        )


class Walk(Process[Network, Network]):
    """A random walk of the weights: every step draws from the global generator."""

    steps: int = Field(default=10, ge=1)
    """Items."""
    fail_at: int = -1
    """Raises at this item."""
    marks: Path | None = None
    """A file that gets a byte an item."""

    def items(self, value: Network, ctx: Context) -> Any:
        return range(self.steps + 1)

    def open(self, value: Network, state: State | None, ctx: Context) -> Live[Network]:
        return _Walking(self, value, state)


class _Walking(Live[Network]):
    def __init__(self, config: Walk, value: Network, state: State | None) -> None:
        self.config, self.value = config, value
        self.step = 0 if state is None else state["step"]
        self.total = config.steps
        self.weight = (value.tensors["weight"] if state is None else state["weight"]).clone()

    @property
    def done(self) -> bool:  # type: ignore[override]
        return self.step >= self.config.steps

    def advance(self, item: int) -> process.Rows:
        if item == self.config.fail_at:
            raise ValueError(f"failed at {item}")
        if self.config.marks is not None:
            with self.config.marks.open("ab") as file:
                file.write(b".")
        self.weight += torch.randn_like(self.weight)
        self.step += 1
        epoch = {"epoch": float(self.step // 5)} if self.step % 5 == 0 else {}
        return [(self.step, {"train_loss": 1 / self.step, **epoch})]

    def snapshot(self) -> State:
        return {"step": self.step, "weight": self.weight}

    def result(self) -> Network:
        CALLS.append("walk")
        module = self.value.module()
        module.weight.data = self.weight.clone()
        return self.value.with_module(module)


class Toward(Mapping[Network, Network]):
    """Half way from the input to a teacher."""

    teacher: NetworkSource
    """Where to."""

    def apply(self, value: Network, ctx: Context) -> Network:
        CALLS.append("toward")
        teacher = ctx.network(self.teacher)
        module = value.module()
        module.load_state_dict({k: (v + teacher.tensors[k]) / 2 for k, v in value.tensors.items()})
        return value.with_module(module)


class Rows(Dataset):
    """Rows of noise."""

    count: int = 4
    """How many."""

    def fingerprint(self) -> str:
        return f"rows {self.count}"

    def open(self) -> Samples:
        rng = np.random.default_rng(0)
        return Samples(
            inputs=rng.normal(size=(self.count, 3)).astype(np.float32),
            labels=np.arange(self.count) % 2,
            classes=("a", "b"),
            preprocessing=Preprocessing(kind="none"),
        )


class Norm(Mapping[Network, Report]):
    """The norm of the weights."""

    data: DataSource | None = None
    """Not used: it is there to be referred to."""

    def apply(self, value: Network, ctx: Context) -> Report:
        CALLS.append("norm")
        return Report(
            metrics={
                "norm": Metric(value=float(value.tensors["weight"].norm()), unit=""),
                "time": Metric(value=float(np.random.default_rng().random()), unit="ms", measured=True),
            }
        )

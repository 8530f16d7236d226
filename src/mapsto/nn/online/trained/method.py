"""What a method against forgetting says of itself: what it keeps, what a step of training minimises, how it answers.

One file a method in ``mapsto/nn/online/memory/``, whose class is its one public name. No method is told of tasks: those that need an end of
one take the coming of new classes for it, and every so many labelled events.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapsto.errors import SpecError, nearest
from mapsto.nn.online.trained.growing_network import GrowingNetwork
from mapsto.nn.online.trained.learner import Labelled
from mapsto.nn.online.trained.method_names import METHODS, method_names
from mapsto.nn.online.trained.sample_memory import SampleMemory
from mapsto.nn.online.trained.samples import RawSamples

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Method", "MethodFields", "Step", "method_of"]


@dataclass(frozen=True, kw_only=True)
class MethodFields:
    """What a method is made with."""

    most_bytes: int
    """Of its memory."""
    replay: int
    """Samples from memory in a step."""
    alpha: float | None
    """Weight of what keeps the old; None for the method's own."""
    beta: float
    """Weight of the labels of replayed samples, where a method weighs these apart."""
    consolidate: int
    """Labelled events after which it consolidates, or trains anew."""
    passes: int
    """Over the memory, of a method that trains anew."""
    seed: int


@dataclass(kw_only=True)
class Step:
    """A step of training on a mini-batch."""

    inputs: Tensor
    """(N, ...), prepared."""
    labels: Tensor
    """(N,), int64."""
    batch: Sequence[Labelled]
    draws: np.random.Generator
    logits: Tensor | None = None
    """(N, classes) of the mini-batch, and of later classes where the method has these, once the loss is known."""


class Method:
    """A method against forgetting. Its state is its memory, `arrays` and `values`.

    Parameters
    ----------
    network
        What it trains.
    samples
        How samples become the network's input.
    fields
        Its settings.
    """

    alpha: ClassVar[float] = 1.0
    """Its own weight of what keeps the old."""
    policy: ClassVar[type[SampleMemory] | None] = None
    """How its memory is kept; None without one."""
    keeps_scores: ClassVar[bool] = False
    """Whether its memory holds the scores of samples."""
    later: ClassVar[bool] = False
    """Whether the network learns a row of later classes, whose score is the last of what `logits` gives."""
    consolidates: ClassVar[bool] = False
    """Whether it does something where a part of the stream ends: where new classes come, and every so many labelled events."""
    trains: ClassVar[bool] = True
    """Whether each mini-batch is trained on."""
    is_network: ClassVar[bool] = True
    """Whether its answers are those of the network and its head."""

    def __init__(self, network: GrowingNetwork, samples: RawSamples, fields: MethodFields) -> None:
        self.network, self.samples, self.fields = network, samples, fields
        self.memory = None if self.policy is None else self.policy(fields.most_bytes)
        self.weight = type(self).alpha if fields.alpha is None else fields.alpha
        """α."""

    def loss(self, step: Step) -> Tensor:
        """What a step minimises; it sets the step's logits."""
        step.logits = self.logits(self.network.features(step.inputs))
        return cross_entropy(step.logits, step.labels)

    def gradients(self, step: Step) -> dict[str, Tensor]:
        """The gradients of a step."""
        return self.network.gradients(self.loss(step))

    def keep(self, step: Step) -> str:
        """Offer the mini-batch to the memory, after its steps; gives what else it did, or nothing."""
        if self.memory is None:
            return ""
        logits = None if step.logits is None or not self.keeps_scores else step.logits.detach().numpy()
        for place, each in enumerate(step.batch):
            scores = None if logits is None else logits[place].astype(np.float32)
            self.memory.add(each.sample, each.label, scores, step.draws)
        return ""

    def consolidate(self, draws: np.random.Generator) -> str:
        """Take what has been learnt so far for what is to be kept; gives what it did, or nothing."""
        return ""

    def learnt(self) -> None:
        """Told after the network changed."""

    def scores(self, features: Tensor) -> Tensor:
        """Probabilities (classes,) of an embedding (1, D)."""
        return self.network.logits(features)[0].double().softmax(0)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, besides its memory."""
        return {}

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        return {}

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state."""

    # -- for methods

    def logits(self, features: Tensor) -> Tensor:
        """Scores of embeddings in training."""
        return self.network.logits_and_later(features) if self.later else self.network.logits(features)

    def replayed(self, draws: np.random.Generator) -> list[int]:
        """Places in the memory that are drawn for a step; none while it is empty."""
        return [] if self.memory is None else self.memory.draw(self.fields.replay, draws)

    def inputs_of(self, places: Sequence[int], draws: np.random.Generator | None = None) -> Tensor:
        """The network's input of places in the memory; with `draws` for training."""
        held = cast("SampleMemory", self.memory)
        found = [held.samples[place] for place in places]
        return self.samples.inputs(found) if draws is None else self.samples.drawn(found, draws)

    def labels_of(self, places: Sequence[int]) -> Tensor:
        """Labels (n,) of places in the memory."""
        held = cast("SampleMemory", self.memory)
        return torch.tensor([held.labels[place] for place in places])

    def together(self, *inputs: Tensor) -> list[Tensor]:
        """The logits of several inputs, made in one pass, so that batch norms see all of them; empty ones cost nothing."""
        features = self.network.features(_joined([each for each in inputs if len(each)], self.samples))
        return list(self.logits(features).split([len(each) for each in inputs]))


def _joined(inputs: Sequence[Tensor], samples: RawSamples) -> Tensor:
    if len(inputs) == 1 or all(each.shape[1:] == inputs[0].shape[1:] for each in inputs):
        return torch.cat(list(inputs))
    length = max(each.shape[-1] for each in inputs)  # token ids
    return torch.cat(
        [torch.nn.functional.pad(each, (0, length - each.shape[-1]), value=samples.padding) for each in inputs]
    )


def method_of(name: str) -> type[Method]:
    """The method of a name. Raises `SpecError` with the nearest known one."""
    known = method_names()
    if name not in known:
        raise SpecError(f"unknown method against forgetting '{name}'", hint=nearest(name, known))
    module = importlib.import_module(f"{METHODS}.{name}")
    found = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    return next(each for each in found if issubclass(each, Method) and not each.__name__.startswith("_"))

"""La-MAML at work: a look ahead over the samples of a mini-batch, whose outer loss moves weights and a rate for each of them.

``θ_k = θ_{k−1} − α ∘ ∇ L(θ_{k−1}; part k)``, ``J = mean_k L(θ_k; batch ∪ replayed)``, then ``α ← α − η ∇_α J`` and
``θ ← θ − max(0, α) ∘ ∇_θ J`` with both gradients clipped (Gupta, Yadav and Paull, "La-MAML: Look-ahead Meta Learning for Continual
Learning", 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mapsto.nn.online.trained.draws_of_step import draws_of
from mapsto.nn.online.trained.growing_network import GrowingNetwork, all_finite
from mapsto.nn.online.trained.inner_steps import inner_points, leaves
from mapsto.nn.online.trained.learned_rates import LearnedRates
from mapsto.nn.online.trained.learner import Labelled, Trainer
from mapsto.nn.online.trained.memory_tables import memory_tables
from mapsto.nn.online.trained.sample_memory import Reservoir
from mapsto.nn.online.trained.samples import RawSamples

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto.kinds import Network

__all__ = ["LookAhead", "LookAheadFields"]


@dataclass(frozen=True, kw_only=True)
class LookAheadFields:
    """Its settings, as the fields of `online.la_maml`."""

    batch: int
    replay: int
    inner_steps: int
    steps: int
    rate_of_rates: float
    clip: float
    second_order: bool
    most_bytes: int


class LookAhead(Trainer):
    """The training."""

    def __init__(
        self, network: GrowingNetwork, rates: LearnedRates, samples: RawSamples, fields: LookAheadFields
    ) -> None:
        self._network, self._rates, self._samples, self._fields = network, rates, samples, fields
        self.batch, self.width = fields.batch, network.width
        self._memory = Reservoir(fields.most_bytes)
        self._batches = 0

    def grow(self, classes: Sequence[str]) -> None:
        self._network.grow(classes)
        self._rates.grow()

    def scores(self, sample: NDArray[Any] | None, prepared: NDArray[Any] | None, concept: str) -> NDArray[np.float64]:
        if not self._network.classes:
            return np.zeros(0)
        kept = self._samples.kept(np.asarray(prepared)[0]) if sample is None else sample
        with self._network.answering():
            features = self._network.features(self._samples.inputs([kept]))
            return self._network.logits(features)[0].double().softmax(0).numpy()

    def learn(self, batch: Sequence[Labelled]) -> list[str]:
        fields, network = self._fields, self._network
        draws = draws_of(network.training.seed, self._batches)
        parts = np.array_split(np.arange(len(batch)), min(fields.inner_steps, len(batch)))
        inner = [self._tensors([batch[place] for place in part.tolist()]) for part in parts]
        fits, held, rates = True, network.held(), dict(self._rates.tensors)
        for number in range(fields.steps):
            old = self._memory.draw(fields.replay, draws)
            replayed = [Labelled(self._memory.samples[place], self._memory.labels[place]) for place in old]
            outer = self._tensors([*batch, *replayed])
            with network.learning(self._batches * fields.steps + number):
                fits = self._step(inner, outer)
            if not fits:
                break
        self._batches += 1
        if not (fits and network.is_finite and all_finite(self._rates.tensors.values())):
            self.left_out += 1
            network.put_back(held)
            self._rates.tensors = rates
            return []
        for each in batch:
            self._memory.add(each.sample, each.label, None, draws)
        return []

    def tables(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        found = [each.clamp(min=0).mean().item() for each in self._rates.tensors.values() if each.numel()]
        names = [name for name, each in self._rates.tensors.items() if each.numel()]
        rows = [[name, f"{rate:.3g}"] for name, rate in zip(names, found, strict=True)]
        learned = {"title": "Learned rates, means", "columns": ["parameters", "rate"], "rows": rows}
        return [*memory_tables(self._memory, classes), learned]

    def network(self, classes: Sequence[str]) -> Network | None:
        return self._network.network(classes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        rates = {f"rates.{name}": each.numpy().copy() for name, each in self._rates.tensors.items()}
        return {**self._network.arrays(), **self._memory.arrays(), **rates}

    def values(self) -> dict[str, Any]:
        return {"batches": self._batches, "memory": self._memory.values()}

    def restore(self, classes: Sequence[str], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._network.restore(classes, arrays, 0)
        self._rates.restore(arrays)
        self._memory.restore(arrays, values["memory"])
        self._batches = int(values["batches"])

    def _tensors(self, examples: Sequence[Labelled]) -> tuple[Tensor, Tensor]:
        inputs = self._samples.inputs([each.sample for each in examples])
        return inputs, torch.tensor([each.label for each in examples])

    def _step(self, inner: Sequence[tuple[Tensor, Tensor]], outer: tuple[Tensor, Tensor]) -> bool:
        """A step; False, and nothing changes, where its gradients are so large that their norm is not finite."""
        fields, network = self._fields, self._network
        start, rates = leaves(network.parameters), leaves(self._rates.tensors)
        points = inner_points(network, start, rates, inner, second_order=fields.second_order)
        losses = [cross_entropy(network.logits_with(point, outer[0]), outer[1]) for point in points]
        wanted = [*start.values(), *rates.values()]
        found: Sequence[Tensor | None] = torch.autograd.grad(torch.stack(losses).mean(), wanted, allow_unused=True)
        gradients = [
            torch.zeros_like(tensor) if gradient is None else gradient  # pyright: ignore[reportUnnecessaryComparison]
            for tensor, gradient in zip(wanted, found, strict=True)
        ]
        of_weights = _clipped(gradients[: len(start)], fields.clip)
        of_rates = _clipped(gradients[len(start) :], fields.clip)
        if of_weights is None or of_rates is None:
            return False
        with torch.no_grad():
            for name, gradient in zip(rates, of_rates, strict=True):
                self._rates.tensors[name] = self._rates.tensors[name] - fields.rate_of_rates * gradient
            for (name, parameter), gradient in zip(network.parameters.items(), of_weights, strict=True):
                parameter.sub_(self._rates.tensors[name].clamp(min=0) * gradient)
        return True


def _clipped(gradients: Sequence[Tensor], most: float) -> list[Tensor] | None:
    """Gradients whose norm, over all of them, is at most `most`; None where it is not finite."""
    norm = torch.stack([each.square().sum() for each in gradients]).sum().sqrt()
    if not norm.isfinite():
        return None
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    return [each * factor for each in gradients]

"""Training on a stream by a method against forgetting: mini-batches, several steps each, and where parts of the stream end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mapsto.nn.online.trained.draws_of_step import draws_of
from mapsto.nn.online.trained.growing_network import GrowingNetwork
from mapsto.nn.online.trained.learner import Labelled, Trainer
from mapsto.nn.online.trained.memory_tables import memory_tables
from mapsto.nn.online.trained.method import Method, Step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Network

__all__ = ["Finetuner"]

_ONE = 1


class Finetuner(Trainer):
    """The training.

    Parameters
    ----------
    network, method
        What is trained, and how it is kept from forgetting.
    batch
        Labelled events of a mini-batch.
    steps
        On each mini-batch, with other samples from memory each time.
    consolidate
        Labelled events after which a method consolidates what it knows, besides where new classes come.
    """

    def __init__(self, network: GrowingNetwork, method: Method, *, batch: int, steps: int, consolidate: int) -> None:
        self._network, self._method = network, method
        self.batch, self._steps, self._consolidate = batch, steps, consolidate
        self.width = network.width
        self._batches = 0
        self._trained: set[int] = set()
        """Classes that were in a mini-batch."""
        self._since = 0
        """Labelled events since it was consolidated."""

    def grow(self, classes: Sequence[str]) -> None:
        self._network.grow(classes)

    def scores(self, sample: NDArray[Any] | None, prepared: NDArray[Any] | None, concept: str) -> NDArray[np.float64]:
        if not self._network.classes:
            return np.zeros(0)
        samples = self._method.samples
        kept = samples.kept(np.asarray(prepared)[0]) if sample is None else sample
        with self._network.answering():
            return self._method.scores(self._network.features(samples.inputs([kept]))).numpy()

    def learn(self, batch: Sequence[Labelled]) -> list[str]:
        did = self._consolidated(batch)
        method, network = self._method, self._network
        samples, draws = [each.sample for each in batch], draws_of(network.training.seed, self._batches)
        labels = torch.tensor([each.label for each in batch])
        step = Step(inputs=method.samples.drawn(samples, draws), labels=labels, batch=batch, draws=draws)
        held = network.held()
        memory = method.memory.held() if method.memory is not None and not method.trains else None
        if method.trains:
            for number in range(self._steps):
                if number:
                    step.inputs = method.samples.drawn(samples, draws)
                with network.learning(self._batches * self._steps + number):
                    network.descend(method.gradients(step))
                method.learnt()
        self._batches += 1
        fits, kept = network.is_finite, ""
        if fits:
            kept = method.keep(step)
            fits = method.trains or network.is_finite
        if not fits:
            self.left_out += 1
            network.put_back(held)
            if method.memory is not None and memory is not None:
                method.memory.put_back(memory)
            method.learnt()
            return did
        return [*did, kept] if kept else did

    def tables(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        return memory_tables(self._method.memory, classes)

    def network(self, classes: Sequence[str]) -> Network | None:
        return self._network.network(classes) if self._method.is_network else None

    def raise_rate(self, factor: float) -> bool:
        self._network.boost *= factor
        return True

    def reset_head(self) -> bool:
        self._network.reset_head()
        return True

    def arrays(self) -> dict[str, NDArray[Any]]:
        memory = self._method.memory
        return {
            **self._network.arrays(),
            **({} if memory is None else memory.arrays()),
            **{f"method.{name}": array for name, array in self._method.arrays().items()},
        }

    def values(self) -> dict[str, Any]:
        memory = self._method.memory
        return {
            "batches": self._batches,
            "steps": self._network.steps,
            "trained": sorted(self._trained),
            "since": self._since,
            "method": self._method.values(),
            **({} if memory is None else {"memory": memory.values()}),
        }

    def restore(self, classes: Sequence[str], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._network.restore(classes, arrays, int(values["steps"]))
        if self._method.memory is not None:
            self._method.memory.restore(arrays, values["memory"])
        own = {name.removeprefix("method."): array for name, array in arrays.items() if name.startswith("method.")}
        self._method.restore(own, values["method"])
        self._batches, self._since = int(values["batches"]), int(values["since"])
        self._trained = {int(label) for label in values["trained"]}

    def _consolidated(self, batch: Sequence[Labelled]) -> list[str]:
        """Consolidate where new classes come, or after so many labelled events; what was done."""
        labels = {each.label for each in batch}
        new = bool(labels - self._trained)
        ends = bool(self._trained) and (new or self._since >= self._consolidate)
        did = ""
        if ends and self._method.consolidates:
            did = self._method.consolidate(draws_of(self._network.training.seed, self._batches, _ONE))
        if ends:
            self._since = 0
        self._trained |= labels
        self._since += len(batch)
        return [did] if did else []

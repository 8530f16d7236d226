"""Follow the meta leader at work: weights from which all concepts so far are learnt quickly, and those adapted to the present one.

``w ← w − β ∇ Σ_i L_query,i(U(w, support_i))`` over concepts i that were met, ``U(w, D) = w − α ∇ L(w; D)`` repeated; questions are answered
with ``U(w, present concept)`` (Finn, Rajeswaran, Kakade and Levine, "Online Meta-Learning", 2019). Each concept keeps a reservoir of its
samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mapsto.nn.online.drift import Ddm
from mapsto.nn.online.trained.draws_of_step import draws_of
from mapsto.nn.online.trained.growing_network import GrowingNetwork, all_finite
from mapsto.nn.online.trained.inner_steps import inner_points, leaves
from mapsto.nn.online.trained.learned_rates import LearnedRates
from mapsto.nn.online.trained.learner import Labelled, Trainer
from mapsto.nn.online.trained.sample_memory import Reservoir, SampleMemory
from mapsto.nn.online.trained.samples import RawSamples
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from mapsto.kinds import Network

__all__ = ["MetaLeader", "MetaLeaderFields"]


@dataclass(frozen=True, kw_only=True)
class MetaLeaderFields:
    """Its settings, as the fields of `online.follow_the_meta_leader`."""

    batch: int
    inner_steps: int
    inner_batch: int
    steps: int
    second_order: bool
    most_concepts: int
    quiet: int
    most_bytes: int
    told: bool
    """Whether a column tells the concept."""


class MetaLeader(Trainer):
    """The training."""

    def __init__(
        self, network: GrowingNetwork, rates: LearnedRates, samples: RawSamples, fields: MetaLeaderFields
    ) -> None:
        self._network, self._rates, self._samples, self._fields = network, rates, samples, fields
        self.batch, self.width = fields.batch, network.width
        self._concepts: dict[str, Reservoir] = {}
        """The memory of each, the one that was learnt from last at the end."""
        self._present = ""
        self._found = 0
        """Concepts that were found."""
        self._since_new = 0
        """Labelled events since a new class came."""
        self._met: set[int] = set()
        self._errors = Ddm()
        self._batches = 0
        self._adapted: dict[str, Tensor] = {}
        """The weights adapted to the present concept; empty for those that are not adapted."""

    def grow(self, classes: Sequence[str]) -> None:
        self._network.grow(classes)
        self._rates.grow()
        for name, tensor in self._adapted.items():
            parameter = self._network.parameters[name].detach()
            if len(parameter) > len(tensor):
                self._adapted[name] = torch.cat([tensor, parameter[len(tensor) :]])

    def scores(self, sample: NDArray[Any] | None, prepared: NDArray[Any] | None, concept: str) -> NDArray[np.float64]:
        if not self._network.classes:
            return np.zeros(0)
        kept = self._samples.kept(np.asarray(prepared)[0]) if sample is None else sample
        other = self._fields.told and concept not in ("", self._present)
        with self._network.answering():
            point = self._adapted if self._adapted and not other else self._network.parameters
            logits = self._network.logits_with(point, self._samples.inputs([kept]))[0].double()
            return logits.softmax(0).numpy()

    def labelled(self, example: Labelled) -> tuple[Labelled, list[str]]:
        new = example.label not in self._met
        self._met.add(example.label)
        drift = self._errors.update(float(not example.right))
        if self._fields.told:
            begins = example.concept != self._present
            name = example.concept
        else:
            begins = not self._present or (new and self._since_new >= self._fields.quiet) or drift
            self._found += begins
            name = f"concept {self._found}"
        self._since_new = 0 if new else self._since_new + 1
        did: list[str] = []
        if begins and name != self._present:
            known = name in self._concepts
            self._present, self._adapted = name, {}
            self._errors = Ddm()
            if known:
                self._adapt(draws_of(self._network.training.seed, self._batches, 2))
            did = [f"{short(name)} {'returns' if known else 'begins'}"]
        return example._replace(concept=name if self._fields.told else self._present), did

    def learn(self, batch: Sequence[Labelled]) -> list[str]:
        fields, network = self._fields, self._network
        draws = draws_of(network.training.seed, self._batches)
        held, adapted = network.held(), self._adapted
        concepts = {name: (memory, memory.held()) for name, memory in self._concepts.items()}
        for each in batch:
            memory = self._concepts.pop(each.concept, None) or Reservoir(fields.most_bytes // fields.most_concepts)
            self._concepts[each.concept] = memory
            memory.add(each.sample, each.label, None, draws)
        while len(self._concepts) > fields.most_concepts:
            del self._concepts[next(iter(self._concepts))]
        for number in range(fields.steps):
            with network.learning(self._batches * (fields.steps + 1) + number):
                self._meta_step(draws)
        fits = network.is_finite and self._adapt(draws)
        self._batches += 1
        if not fits:
            self.left_out += 1
            network.put_back(held)
            self._adapted = adapted
            self._concepts = {}
            for name, (memory, before) in concepts.items():
                memory.put_back(before)
                self._concepts[name] = memory
        return []

    def tables(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        rows = [
            [name or "(none)", len(each), f"{each.bytes:,}", sum(each.met)] for name, each in self._concepts.items()
        ]
        columns = ["concept", "samples held", "bytes", "samples met"]
        return [{"title": "Memory of concepts", "columns": columns, "rows": rows}]

    def network(self, classes: Sequence[str]) -> Network | None:
        return self._network.network(classes, self._adapted or None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = self._network.arrays()
        found |= {f"adapted.{name}": each.numpy().copy() for name, each in self._adapted.items()}
        found |= {f"rates.{name}": each.numpy().copy() for name, each in self._rates.tensors.items()}
        for place, memory in enumerate(self._concepts.values()):
            found |= {f"concept{place}.{name}": array for name, array in memory.arrays().items()}
        return {**found, "errors": self._errors.state()["values"]}

    def values(self) -> dict[str, Any]:
        return {
            "batches": self._batches,
            "steps": self._network.steps,
            "concepts": [*self._concepts],
            "memories": [each.values() for each in self._concepts.values()],
            "present": self._present,
            "found": self._found,
            "since_new": self._since_new,
            "met": sorted(self._met),
        }

    def restore(self, classes: Sequence[str], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        self._network.restore(classes, arrays, int(values["steps"]))
        self._rates.restore(arrays)
        self._adapted = {}
        is_adapted = any(key.startswith("adapted.") for key in arrays)
        for name, parameter in self._network.parameters.items() if is_adapted else ():
            tensor = torch.tensor(arrays[f"adapted.{name}"])
            if (tensor.shape, tensor.dtype) != (parameter.shape, parameter.dtype) or not tensor.isfinite().all():
                raise ValueError(f"adapted {name} of shape {tuple(tensor.shape)}, of another type, or NaN in it")
            self._adapted[name] = tensor
        self._concepts = {}
        for place, (name, own) in enumerate(zip(values["concepts"], values["memories"], strict=True)):
            prefix = f"concept{place}."
            memory = Reservoir(self._fields.most_bytes // self._fields.most_concepts)
            memory.restore(
                {key.removeprefix(prefix): each for key, each in arrays.items() if key.startswith(prefix)}, own
            )
            self._concepts[str(name)] = memory
        self._errors.restore({"values": arrays["errors"]})
        self._batches, self._found = int(values["batches"]), int(values["found"])
        self._present, self._since_new = str(values["present"]), int(values["since_new"])
        self._met = {int(label) for label in values["met"]}

    # -- private

    def _meta_step(self, draws: np.random.Generator) -> None:
        """A step of the weights along the outer gradient of one concept that was met."""
        fields, network = self._fields, self._network
        able = [memory for memory in self._concepts.values() if len(memory) > 1]
        if not able:
            return
        memory = able[int(draws.integers(len(able)))]
        drawn = memory.draw(2 * fields.inner_batch, draws)
        support, query = drawn[: (len(drawn) + 1) // 2], drawn[(len(drawn) + 1) // 2 :]
        start = leaves(network.parameters)
        inner = [self._tensors(memory, support)] * fields.inner_steps
        points = inner_points(network, start, self._rates.tensors, inner, second_order=fields.second_order)
        inputs, labels = self._tensors(memory, query)
        loss = cross_entropy(network.logits_with(points[-1], inputs), labels)
        found: Sequence[Tensor | None] = torch.autograd.grad(loss, list(start.values()), allow_unused=True)
        network.descend(
            {
                name: torch.zeros_like(tensor) if gradient is None else gradient  # pyright: ignore[reportUnnecessaryComparison]
                for (name, tensor), gradient in zip(start.items(), found, strict=True)
            }
        )

    def _adapt(self, draws: np.random.Generator) -> bool:
        """Adapt to the samples of the present concept, a mini-batch a step; whether what comes of it is finite, else nothing changes."""
        memory, network = self._concepts.get(self._present), self._network
        if memory is None or not len(memory):
            return True
        fields = self._fields
        inner = [self._tensors(memory, memory.draw(2 * fields.inner_batch, draws)) for _ in range(fields.inner_steps)]
        with network.learning(self._batches * (fields.steps + 1) + fields.steps):
            start = leaves(network.parameters)
            points = inner_points(network, start, self._rates.tensors, inner, second_order=False)
        if not all_finite(points[-1].values()):
            return False
        self._adapted = {name: tensor.detach().clone() for name, tensor in points[-1].items()}
        return True

    def _tensors(self, memory: SampleMemory, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        inputs = self._samples.inputs([memory.samples[place] for place in places])
        return inputs, torch.tensor([memory.labels[place] for place in places])

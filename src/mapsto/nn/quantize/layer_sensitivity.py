"""What quantizing costs, layer by layer: accuracy with one layer's quantizers alone, and the quantizers that stay if layers are float.

A layer's quantizers are those of its weight and bias, of its input, and of its own output. Shared by `quantize.mixed` and
`evaluate.quantization`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.edits.quantizers import Quantizer, Quantizers
from mapsto.nn.meta.adaptation_methods import CENTROID
from mapsto.nn.network.call_sites import Trace, trace
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto.nn.network.examples import example_inputs
from mapsto.nn.network.inference import evaluating
from mapsto.nn.network.preprocess import prepare
from mapsto.nn.quantize.placement import place_quantizers, users
from mapsto.nn.quantize.post_training import quantized_edit, without_quantizers
from mapsto.nn.train.batches import episode_scores, task_of
from mapsto.nn.train.calibration_fields import CalibrationFields

if TYPE_CHECKING:
    from mapsto.nn.network.call_sites import Site

__all__ = ["Cost", "QuantizerCosts", "Score"]

_BATCH = 256


class Score(NamedTuple):
    """What a module answers to the measured samples, and how often it is right."""

    accuracy: float
    """In percent."""
    outputs: Tensor
    """(N, classes)."""

    def change_from(self, other: Score) -> float:
        """Mean squared difference of the outputs, as a share of the other's variance."""
        return float((self.outputs - other.outputs).square().mean() / other.outputs.var().clamp_min(1e-30))


class Cost(NamedTuple):
    """What one layer's quantizers cost by themselves."""

    path: str
    drop: float
    """Percentage points of accuracy below the float network's."""
    change: float
    """Mean squared change of the outputs, as a share of their variance: it tells layers apart whose drops are alike."""


class QuantizerCosts:
    """A quantized network at hand, its float form, and samples to compare them on.

    Raises `DomainError` for a network without quantizers or that the data does not fit, `DataError` for data without classes.
    """

    def __init__(self, fields: CalibrationFields, value: Network, ctx: Context, *, where: str) -> None:
        self._value = value
        self._edit = quantized_edit(value, where=where)
        self._score = _scorer(fields, value, ctx, where=where)
        self._graph: Trace = trace(without_quantizers(value), example_inputs(value.signature, 2)[0])
        self.layers = tuple(dict.fromkeys(q.path for q in self._edit.quantizers if q.weight))
        """Paths of the quantized layers, in the order they run."""
        self.original = self._score(without_quantizers(value))

    def cost(self, path: str) -> Cost:
        """Of one layer's quantizers alone."""
        chosen = place_quantizers(self._graph)
        sources = {source for _, (weight, source) in chosen.biases.items() if weight.rpartition(".")[0] == path}
        kept = [q for q in self._edit.quantizers if q.path == path or (not q.weight and q.site in sources)]
        found = self._score(self._with(kept))
        return Cost(path, self.original.accuracy - found.accuracy, found.change_from(self.original))

    def drop(self, floats: Collection[str] = ()) -> float:
        """Percentage points of accuracy that are lost with all quantizers but those of the layers in `floats`."""
        return self.original.accuracy - self._score(self._with(self.quantizers(floats))).accuracy

    def quantizers(self, floats: Collection[str]) -> tuple[Quantizer, ...]:
        """The quantizers that stay if some layers are float; what only float layers make and take has none."""
        chosen = place_quantizers(self._graph, skip=floats)
        idle = set(self._between_floats(floats))
        places = {*chosen.observed} - idle | {site for site, source in chosen.follows.items() if source not in idle}
        parameters = {*chosen.weights, *(name for name, (_, of) in chosen.biases.items() if of not in idle)}
        return tuple(
            q
            for q in self._edit.quantizers
            if (f"{q.path}.{q.function}" in parameters if q.weight else q.site in places)
        )

    def _between_floats(self, floats: Collection[str]) -> Iterator[Site]:
        """Places that no integer layer makes or takes, seen through a rectifier, a sum and what only selects."""
        integer = set(self.layers) - set(floats)
        makers, consumers = {call.site: call for call in self._graph.calls}, self._graph.consumers()
        for site, call in makers.items():
            near = [call, *users(site, consumers)]
            if not call.parameters:
                before = [makers[source] for source in call.sources if source in makers]
                near += before
                near += [makers[s] for maker in before if not maker.parameters for s in maker.sources if s in makers]
            if not any(other.parameters and other.site.path in integer for other in near):
                yield site

    def _with(self, quantizers: Collection[Quantizer]) -> nn.Module:
        module = without_quantizers(self._value)
        return Quantizers(quantizers=tuple(quantizers)).apply(module) if quantizers else module


def _scorer(fields: CalibrationFields, value: Network, ctx: Context, *, where: str) -> Callable[[nn.Module], Score]:
    from mapsto.data.checks import require_classes, require_finite, require_in_range

    before = value.signature.preprocessing
    if fields.data is not None:
        refuse_dense(value.signature, where=where)
        samples = require_classes(ctx.dataset(fields.data), where=where)
        chosen = ctx.random("measured").permutation(len(samples))[: fields.samples]
        require_finite(samples.inputs[chosen], where=f"{where}: data")
        outputs = value.signature.outputs[0].shape[-1]
        if outputs != len(samples.classes):
            raise DomainError(
                f"the network has {outputs} outputs, the data {len(samples.classes)} classes",
                where=where,
                hint="measure on data of its classes; for a learner give tasks",
            )
        require_in_range(samples.labels[chosen], len(samples.classes), where=where)
        inputs, labels = prepare(samples.inputs[chosen], before), torch.as_tensor(samples.labels[chosen])

        def score(module: nn.Module) -> Score:
            with evaluating(module), torch.no_grad():
                answers = torch.cat([module(batch) for batch in inputs.split(_BATCH)])
            return Score(_percent(answers, labels), answers)

        return score

    episodes = ctx.tasks(fields.tasks)
    count = max(1, -(-fields.samples // len(episodes[0].query_labels)))
    tasks = [task_of([episodes[number]]) for number in range(count)]
    labels = torch.cat([torch.as_tensor(task.query_labels.ravel()) for task in tasks])

    def episode_score(module: nn.Module) -> Score:
        found: list[Tensor] = []
        with evaluating(module):
            for task in tasks:
                inputs = prepare(task.inputs.reshape(-1, *task.inputs.shape[2:]), before)
                scores = episode_scores(module, inputs, task, value.adaptation or CENTROID)
                found.append(scores.detach().flatten(0, 1))
        return Score(_percent(torch.cat(found), labels), torch.cat(found))

    return episode_score


def _percent(answers: Tensor, labels: Tensor) -> float:
    return float((answers.argmax(1) == labels).double().mean() * 100)

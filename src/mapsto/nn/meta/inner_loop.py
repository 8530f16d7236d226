"""The inner loop: a few steps of gradient descent on a task's support set; the one of every learner that adapts so.

``θ_{k+1} = θ_k − α ∇ L_support(θ_k)`` from the learner's parameters θ_0 (Finn, Abbeel and Levine, "Model-Agnostic Meta-Learning for
Fast Adaptation of Deep Networks", 2017). What is adapted, by which rates, from which head, and which statistics batch norms take
are the learner's settings.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, mse_loss

from mapsto.errors import DomainError, SpecError, nearest
from mapsto.kinds import Json
from mapsto.nn.edits._adapted_layer import adapter_parameters
from mapsto.nn.meta import batch_norm as norms
from mapsto.nn.meta import updates
from mapsto.nn.meta.class_means import centroids, layer
from mapsto.nn.meta.parameter_swap import Places
from mapsto.nn.network.head import head as head_layer
from mapsto.nn.network.head import head_path

__all__ = [
    "FunctionalModule",
    "Inner",
    "Point",
    "Update",
    "inner_rates",
    "as_leaves",
    "loss_of",
    "moving_names",
    "inner_path",
    "query_scores",
    "task_loss",
    "update_rule",
]


Point = dict[str, Tensor]
"""Parameters by name: the network's own, and `HEAD`'s where the head is not the network's."""
HEAD = ("~head.weight", "~head.bias")


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A learner's settings, as `Adaptation.settings` holds them."""

    steps: int = 5
    """Inner steps in use (evaluation, adaptation)."""
    rate: float = 0.4
    """α, where there is no tensor of rates."""
    head_rate: float | None = None
    """α of the head; None for `rate`."""
    adapts: Literal["all", "head", "body", "adapters"] = "all"
    """Which parameters move: all, the classifier's, all others, or those of adapters (LoRA and its like)."""
    head: Literal["learned", "zero", "prototype"] = "learned"
    """``learned``: the network's own classifier, of a fixed number of ways; ``zero``: one that begins at 0, for any number;
    ``prototype``: one that begins as the class means, for any number (Triantafillou et al., "Meta-Dataset", 2020)."""
    batch_norm: norms.BatchNormMode = "transductive"
    """Which statistics batch norms take; see `mapsto.nn.meta.batch_norm`."""
    update: str = "descend"
    """A file of ``mapsto/nn/meta/updates/``: how parameters move along their gradients."""
    proximal: float = 0.0
    """λ of a term ``λ/2 ‖θ − θ_0‖²`` in the inner loss, which keeps what adapts near (Rajeswaran et al., 2019)."""

    @staticmethod
    def of(settings: Mapping[str, Json]) -> Inner:
        """From an `Adaptation`'s settings; what is not said has its default."""
        known = {field.name for field in fields(Inner)}
        return Inner(**cast("Any", {name: value for name, value in settings.items() if name in known}))

    def settings(self) -> dict[str, Json]:
        """For an `Adaptation`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Update(Protocol):
    """A file of ``mapsto/nn/meta/updates/``: how parameters move along their gradients."""

    def update(
        self,
        point: Point,
        gradients: Point,
        step: int,
        rates: Mapping[str, float],
        tensors: Mapping[str, Tensor],
        memory: dict[str, Tensor],
    ) -> Point:
        """The parameters after a step, for every name of `gradients`.

        `rates` has α for each, `tensors` are the learner's own, `memory` is what the rule keeps from step to step of one task, empty
        at first.
        """
        ...


def update_rule(name: str) -> Update:
    """The rule of that name. Raises `SpecError` with the nearest known one.

    >>> update_rule("descend").__name__
    'mapsto.nn.meta.updates.descend'
    """
    known = [info.name for info in pkgutil.iter_modules(updates.__path__)]
    if name not in known:
        raise SpecError(f"unknown rule of updates '{name}'", hint=nearest(name, known))
    return cast("Update", importlib.import_module(f"{updates.__name__}.{name}"))


class FunctionalModule:
    """A module as a function of its parameters, its batch norms by the statistics that the learner's mode asks for.

    Parameters
    ----------
    module
        With `norms.task_norms` in force.
    inner
        The learner's settings.
    tensors
        The learner's own tensors.
    record
        Where given, the statistics that batch norms meet are added under the inner step, and none stored are used.
    functional
        Whether it is called under `vmap`.
    """

    def __init__(
        self,
        module: nn.Module,
        inner: Inner,
        tensors: Mapping[str, Tensor],
        *,
        record: norms.Record | None = None,
        functional: bool = False,
    ) -> None:
        self.module, self.inner, self.tensors, self._record = module, inner, tensors, record
        self._functional, self._places = functional, Places(module)
        self._norms = norms.norm_paths(module) if inner.batch_norm == "per_step" else []
        self._muted = 0
        self.per_step = self._per_step()
        """Parameters of batch norms that have values of their own at each inner step, and the last step that has any."""

    def __enter__(self) -> None:
        """Within the block what is computed was computed before, so nothing is recorded; blocks may be nested."""
        self._muted += 1

    def __exit__(self, *error: object) -> None:
        self._muted -= 1

    def __call__(self, point: Point, inputs: Tensor, step: int) -> Tensor:
        """The network's output, by the head of `point` where it has one, after `step` inner steps."""
        parameters = {name: tensor for name, tensor in point.items() if not name.startswith("~")}
        parameters |= {name: self.tensors[f"{name}@{min(step, last)}"] for name, last in self.per_step.items()}
        with ExitStack() as stack:
            seen: norms.Statistics | None = None
            if self._record is not None:
                seen = stack.enter_context(norms.recording())
            elif self.inner.batch_norm == "none":
                stack.enter_context(norms.using("stored"))
            elif (statistics := self.statistics(step)) is not None:
                stack.enter_context(norms.using(statistics))
            elif self._functional and not norms.are_given():
                stack.enter_context(norms.recording())
            stack.enter_context(self._places.holding(parameters))
            output: Tensor = self.module(inputs)
            if seen is not None and self._record is not None and not self._muted:
                noted = {place: (mean.detach(), variance.detach()) for place, (mean, variance) in seen.items()}
                self._record.setdefault(step, []).append(noted)
        weight = point.get(HEAD[0])
        return output if weight is None else linear(output, weight, point[HEAD[1]])

    def statistics(self, step: int) -> norms.Statistics | None:
        """The running statistics of an inner step (after more steps than were trained the last one's); None without any."""
        if not self._norms:
            return None
        statistics: norms.Statistics = {}
        for place in self._norms:
            mean, variance = norms.statistics_names(place)
            trained = [int(name.rpartition("@")[2]) for name in self.tensors if name.startswith(f"{mean}@")]
            if not trained:
                raise DomainError(
                    f"this learner holds no per-step statistics of '{place}'", hint="train it with batch_norm: per_step"
                )
            at = min(step, max(trained))
            statistics[place] = (self.tensors[f"{mean}@{at}"], self.tensors[f"{variance}@{at}"])
        return statistics

    def _per_step(self) -> dict[str, int]:
        last_steps: dict[str, int] = {}
        for place in norms.norm_paths(self.module):  # whichever statistics are asked for
            for name in ("weight", "bias"):
                parameter = f"{place}.{name}" if place else name
                steps = [int(key.rpartition("@")[2]) for key in self.tensors if key.startswith(f"{parameter}@")]
                if steps:
                    last_steps[parameter] = max(steps)
        return last_steps


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy for classes (int64), mean squared error for numbers."""
    return mse_loss(outputs, labels) if labels.is_floating_point() else cross_entropy(outputs, labels)


Draw: TypeAlias = Callable[[int], Tensor]
"""Inner step → indices into the support set."""


def inner_path(
    call: FunctionalModule,
    start: Point,
    support: Tensor,
    labels: Tensor,
    ways: int,
    *,
    steps: int,
    second_order: bool = False,
    functional: bool = False,
    checkpointed: bool = False,
    draw: Draw | None = None,
) -> Iterator[Point]:
    """The parameters before the first inner step and after each.

    Parameters
    ----------
    start
        The learner's parameters, which want gradients.
    support, labels
        Prepared samples (S, ...), and classes (S,) int64 or targets (S, K).
    steps
        How many.
    second_order
        Whether gradients flow through the inner gradients.
    functional
        Whether `torch.func.grad` is used, which works under `vmap`; else `torch.autograd.grad`, which is faster.
    checkpointed
        Whether each step keeps only its result and is computed again on the way back: less memory, more time.
    draw
        The mini-batch of each step; by default the whole support set.

    Raises
    ------
    DomainError
        The inner loss is not finite: names the step, the loss and the rate (not when `functional`).
    """
    inner, rule, memory = call.inner, update_rule(call.inner.update), dict[str, Tensor]()
    point = _with_head(call, start, support, labels, ways, functional=functional)
    moving = [name for name in moving_names(call.module, inner, point) if name not in call.per_step]
    rates = inner_rates(call.module, inner, point)
    origin = point if inner.proximal else {}
    yield point
    for step in range(steps):
        chosen = draw(step) if draw is not None else None
        inputs, targets = (support, labels) if chosen is None else (support[chosen], labels[chosen])
        fixed = {name: tensor for name, tensor in point.items() if name not in moving}
        before = list(memory)
        kept: list[str] = []

        def advance(
            *values: Tensor,
            step: int = step,
            fixed: Point = fixed,
            inputs: Tensor = inputs,
            targets: Tensor = targets,
            before: list[str] = before,
            kept: list[str] = kept,
        ) -> tuple[Tensor, ...]:
            here = dict(zip(moving, values, strict=False))
            own = dict(zip(before, values[len(moving) :], strict=True))

            def loss_at(moved: Point) -> Tensor:
                return loss_of(call({**fixed, **moved}, inputs, step), targets)

            if functional:
                gradients = cast("Point", torch.func.grad(loss_at)(here))
                if not second_order:
                    gradients = {name: gradient.detach() for name, gradient in gradients.items()}
            else:
                gradients = _gradients(loss_at, here, step, rates, second_order=second_order)
            for name in gradients.keys() & origin.keys():
                gradients[name] = gradients[name] + inner.proximal * (here[name] - origin[name])
            moved = rule.update(here, gradients, step, rates, call.tensors, own)
            kept[:] = own
            return (*(moved.get(name, here[name]) for name in moving), *own.values())

        values = (*(point[name] for name in moving), *memory.values())
        if checkpointed:
            from torch.utils.checkpoint import checkpoint

            found: Any = checkpoint(advance, *values, use_reentrant=False, context_fn=lambda: (nullcontext(), call))
            after = cast("tuple[Tensor, ...]", found)
        else:
            after = advance(*values)
        memory = dict(zip(kept, after[len(moving) :], strict=True))
        point = {**fixed, **dict(zip(moving, after, strict=False))}
        yield point


def _gradients(
    loss_at: Callable[[Point], Tensor], point: Point, step: int, rates: Mapping[str, float], *, second_order: bool
) -> Point:
    loss = loss_at(point)
    value = loss.item()
    if not math.isfinite(value):
        rate_text = " and ".join(f"{rate:g}" for rate in sorted(set(rates.values())))
        raise DomainError(
            f"the inner loop diverged: the loss at inner step {step} is {value} at an inner rate of {rate_text}",
            hint="lower the inner rate, or take fewer inner steps",
        )
    gradients = torch.autograd.grad(loss, list(point.values()), create_graph=second_order, allow_unused=True)
    return {
        name: gradient
        for name, gradient in zip(point, gradients, strict=True)
        if gradient is not None  # pyright: ignore[reportUnnecessaryComparison]
    }


def as_leaves(point: Point, *, functional: bool) -> Point:
    """The same parameters without a history, to compute with where no gradient flows back to them."""
    detached = {name: tensor.detach() for name, tensor in point.items()}
    return detached if functional else {name: tensor.requires_grad_() for name, tensor in detached.items()}


def moving_names(module: nn.Module, inner: Inner, point: Point) -> list[str]:
    """The parameters that the inner loop changes. Raises `DomainError` where adapters are asked for and there are none."""
    heads = _head_names(module, inner, point)
    if inner.adapts == "all":
        return list(point)
    if inner.adapts == "adapters":
        added = set(adapter_parameters(module)) - heads
        adapters = [name for name in point if name in added]
        if not adapters:
            raise DomainError("the network has no adapters", hint="put an `adapt.lora` step before")
        return [*adapters, *(name for name in point if name in heads)]
    return [name for name in point if (name in heads) == (inner.adapts == "head")]


def inner_rates(module: nn.Module, inner: Inner, names: Iterable[str]) -> dict[str, float]:
    """α of each parameter of those names."""
    if inner.head_rate is None:
        return dict.fromkeys(names, inner.rate)
    heads = _head_names(module, inner, names)
    return {name: inner.head_rate if name in heads else inner.rate for name in names}


def _head_names(module: nn.Module, inner: Inner, names: Iterable[str]) -> set[str]:
    head = head_path(module) if inner.head == "learned" else None
    return {*HEAD, *(name for name in names if head is not None and name.startswith(f"{head}."))}


def _with_head(
    call: FunctionalModule, start: Point, support: Tensor, labels: Tensor, ways: int, *, functional: bool
) -> Point:
    if call.inner.head == "learned":
        own = head_layer(call.module)
        if own is not None and own.out_features != ways:
            raise DomainError(
                f"this learner's head has {own.out_features} outputs, the task asks for {ways}",
                hint="give it tasks of that many ways, or train one with `head: zero`",
            )
        return dict(start)
    features = call(start, support, 0)
    if call.inner.head == "prototype":
        weight, bias = layer(centroids(features, labels, ways, checked=not functional))
        # views, so that the first inner gradient is that of the loss with this head in place, not of the head's making
        own = start if functional else {name: tensor.view_as(tensor) for name, tensor in start.items()}
        return {**own, HEAD[0]: weight, HEAD[1]: bias}
    zeros = [features.new_zeros(ways, features.shape[-1]), features.new_zeros(ways)]
    if not functional:
        zeros = [tensor.requires_grad_() for tensor in zeros]
    return {**start, **dict(zip(HEAD, zeros, strict=True))}


def query_scores(call: FunctionalModule, point: Point, support: Tensor, query: Tensor, step: int) -> Tensor:
    """Outputs (Q, ways) for queries after `step` inner steps, in the learner's batch norm mode."""
    if call.inner.batch_norm != "inductive":
        return call(point, query, step)
    with norms.recording() as statistics:
        call(point, support, step)
    with norms.using(statistics):
        return call(point, query, step)


def task_loss(
    call: FunctionalModule,
    start: Point,
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    ways: int,
    *,
    weights: Sequence[float],
    second_order: bool,
    functional: bool = False,
    checkpointed: bool = False,
) -> Tensor:
    """The outer loss of one task: the queries' loss after each inner step, weighted.

    Parameters
    ----------
    weights
        One for the parameters before the first step and one for those after each step; MAML's are 0, …, 0, 1.
    """
    steps = len(weights) - 1
    points = inner_path(
        call,
        start,
        support,
        support_labels,
        ways,
        steps=steps,
        second_order=second_order,
        functional=functional,
        checkpointed=checkpointed,
    )
    total: Tensor | None = None
    for step, (point, weight) in enumerate(zip(points, weights, strict=True)):
        if weight:
            part = weight * loss_of(query_scores(call, point, support, query, step), query_labels)
            total = part if total is None else total + part
    if total is None:
        raise DomainError("no inner step has a weight in the outer loss", hint="give the last one 1")
    return total

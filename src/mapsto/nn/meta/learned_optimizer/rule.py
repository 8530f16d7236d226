"""A learned update rule at work: its features, the step that it gives, and the optimiser that runs it.

``Δ_i = −η · exp(m_i) · (a_i + d_i)`` where the rule's network gives direction d and log magnitude m (kept within ±4) of each parameter i
from its features, and a is Adam's direction m̂ / (√v̂ + ε), or 0 for a rule without nominal term (Metz et al., "Tasks, Stability,
Architecture, and Compute: Training More Effective Learned Optimizers", 2020). Every feature is scaled by its tensor, so that a rule fits
tensors of any size and scale, and parameters in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from mapsto.errors import DomainError
from mapsto.nn.networks.update_rule import DECAYS, SECOND_DECAY, TIMES, UpdateRule

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["Layout", "LearnedOptimizer", "Slots", "update", "updating_module"]

_TINY = 1e-12
_ADAM_EPSILON = 1e-8
_BOUND = 8.0
"""No feature of a parameter is further from 0: a rare gradient is no reason for a step nobody has trained for."""
_MAGNITUDE = 4.0
_FACTORY = "mapsto.nn.networks.update_rule:update_rule"
_ROWS = 2**13
"""Parameters whose hidden units are held at once: as many as stay in a CPU's cache."""
_PACK = 2**20
"""Parameters, at least, whose features are held at once."""


def updating_module(network: Network, *, where: str = "rule") -> UpdateRule:
    """The rule's module. Raises `DomainError` for a network of another kind, or a rule with NaN or infinite weights."""
    if network.arch.name != _FACTORY:
        raise DomainError(
            f"the network is no update rule but comes from {network.arch.name}",
            where=where,
            hint="give what meta.optimizer has trained from networks.update_rule",
        )
    if not all(bool(tensor.isfinite().all()) for tensor in network.tensors.values()):
        raise DomainError("the rule holds NaN or infinite weights", where=where, hint="train it again, at a lower rate")
    return cast("UpdateRule", network.module())


class Slots(NamedTuple):
    """What the rule remembers of N parameters."""

    momenta: Tensor
    """Means of the gradient at every decay, shape (N, len(DECAYS)), not yet corrected for beginning at 0."""
    second: Tensor
    """Mean of the squared gradient, shape (N,)."""


@dataclass(frozen=True)
class Layout:
    """Which of N parameters in a row belong to which tensor."""

    sizes: tuple[int, ...]
    matrices: tuple[bool, ...]
    """Whether the tensor has more than one dimension: a weight, not a bias."""

    @staticmethod
    def of(shapes: Iterable[Sequence[int]]) -> Layout:
        """The layout of tensors of these shapes.

        >>> Layout.of([(2, 3), (2,)])
        Layout(sizes=(6, 2), matrices=(True, False))
        """
        known = [tuple(shape) for shape in shapes]
        return Layout(tuple(torch.Size(shape).numel() for shape in known), tuple(len(shape) > 1 for shape in known))

    def means(self, values: Tensor) -> Tensor:
        """The mean of values (N, ...) over each tensor, shape (S, ...)."""
        return torch.stack([part.mean(0) for part in values.split(self.sizes)])

    def spread(self, values: Tensor) -> Tensor:
        """Values (S, ...) of tensors as those of their parameters, shape (N, ...)."""
        parts = [
            value.expand(size, *values.shape[1:]) for value, size in zip(values.unbind(0), self.sizes, strict=True)
        ]
        return torch.cat(parts)


def update(
    rule: UpdateRule, parameters: Tensor, gradient: Tensor, slots: Slots, step: int, layout: Layout
) -> tuple[Tensor, Slots]:
    """The change of N parameters (N,) at step 1, 2, … and what the rule then remembers.

    A pure function, differentiable, and fit for `torch.func.vmap`.
    """
    new = remembered(gradient, slots)
    elements, tensors, nominal = features(parameters, gradient, new, step, layout)
    context = layout.spread(rule.context(tensors))
    parts = [rule.outputs(*rows) for rows in zip(elements.split(_ROWS), context.split(_ROWS), strict=True)]
    outputs = parts[0] if len(parts) == 1 else torch.cat(parts)
    direction, magnitude = outputs.unbind(-1)
    if rule.nominal == "adam":
        direction = direction + nominal
    return -rule.rate * torch.exp(_MAGNITUDE * torch.tanh(magnitude / _MAGNITUDE)) * direction, new


def remembered(gradient: Tensor, slots: Slots) -> Slots:
    """The means after one more gradient (N,)."""
    decays = gradient.new_tensor(DECAYS)
    return Slots(
        momenta=decays * slots.momenta + (1 - decays) * gradient[:, None],
        second=SECOND_DECAY * slots.second + (1 - SECOND_DECAY) * gradient.square(),
    )


def features(
    parameters: Tensor, gradient: Tensor, slots: Slots, step: int, layout: Layout
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, ELEMENTS) of parameters, (S, TENSORS) of tensors, and Adam's direction (N,)."""
    decays = torch.tensor(DECAYS, dtype=torch.float64)
    corrections = (1 / (1 - decays**step)).to(gradient)
    momenta = slots.momenta * corrections
    second = slots.second / (1 - SECOND_DECAY**step)
    root = (second + _TINY**2).sqrt() + _ADAM_EPSILON  # the root of 0 has no derivative
    raw = torch.cat([gradient[:, None], parameters[:, None], momenta], 1)
    mean_squares = layout.means(torch.cat([raw.square(), second[:, None]], 1))
    scales = (mean_squares[:, :-1] + _TINY**2).sqrt()
    relative = raw / layout.spread(scales)
    whitened = torch.cat([gradient[:, None], momenta], 1) / root[:, None]
    spread = torch.log(second / (layout.spread(mean_squares[:, -1]) + _TINY**2) + 1e-6) / 4
    elements = torch.cat([relative, whitened, spread[:, None]], 1).clamp(-_BOUND, _BOUND)
    products = torch.stack(
        [
            relative[:, 0] * relative[:, 3],
            relative[:, 2] * relative[:, 4],
            whitened[:, 2].square(),
            whitened[:, 3].square(),
        ],
        1,
    )
    means = layout.means(products)
    noise = torch.log(means[:, 2:] + 1e-6) / 4
    sizes = gradient.new_tensor(
        [[(math.log(size) - 6) / 4, float(m)] for size, m in zip(layout.sizes, layout.matrices, strict=True)]
    )
    times = torch.tanh(gradient.new_tensor([step / time - 1 for time in TIMES]))
    tensors = torch.cat(
        [
            (torch.log(scales[:, 1:2].clamp_min(1e-3)) + 3) / 2,
            sizes,
            means[:, :2],
            noise,
            times.expand(len(layout.sizes), len(TIMES)),
        ],
        1,
    )
    return elements, tensors, whitened[:, 2]


class LearnedOptimizer(torch.optim.Optimizer):
    """The optimiser that a rule is.

    Parameters
    ----------
    parameters
        Tensors or groups of them, as for any optimiser of torch; a group's ``weight_decay`` is decoupled, as with AdamW.
    rule
        From `updating_module`; it is moved to the parameters' device and not changed.
    lr
        The learning rate, which a schedule may change.
    base
        The learning rate at which the rule's steps are as it was trained; at twice that they are twice as long.

    Raises
    ------
    DomainError
        `lr` or `base` is not positive, or a parameter's gradient is sparse.

    >>> from mapsto.nn.networks.update_rule import update_rule
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = LearnedOptimizer([weight], update_rule(), lr=1.0)  # untrained: it is Adam with a rate of 0.001
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> weight.tolist() == [0.9990000128746033] * 3
    True
    """

    def __init__(
        self, parameters: Iterable[Any], rule: UpdateRule, *, lr: float, base: float = 1.0, weight_decay: float = 0.0
    ) -> None:
        if not (lr >= 0 and base > 0):
            raise DomainError(f"lr is {lr}, base is {base}", where="LearnedOptimizer", hint="give positive numbers")
        self._rule = rule.eval().requires_grad_(False)
        self._base = base
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step of all parameters that have a gradient; in one call of the rule where they are not too many."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            wanted = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in wanted:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
        for pack in _packs(self._with_gradient(), lambda parameter: self.state[parameter].get("step", 0)):
            self._step(pack)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As any optimiser's, but what the rule remembers keeps its own precision."""
        super().load_state_dict(state_dict)
        places = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, slots in state_dict["state"].items():
            parameter = places[int(index)]
            for name in ("momenta", "second"):
                if name in slots:
                    self.state[parameter][name] = slots[name].to(parameter.device, copy=True)

    def _with_gradient(self) -> list[tuple[Tensor, float]]:
        return [
            (parameter, group["lr"] / self._base)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]

    def _step(self, pack: Sequence[tuple[Tensor, float]]) -> None:
        """A step of tensors of one age and one device."""
        parameters = [parameter for parameter, _ in pack]
        rule = self._rule.to(parameters[0].device)
        dtype = rule.output.weight.dtype
        gradients = [_dense(parameter) for parameter in parameters]
        slots = [self._slots(parameter) for parameter in parameters]
        layout = Layout.of(parameter.shape for parameter in parameters)
        change, new = update(
            rule,
            torch.cat([parameter.reshape(-1) for parameter in parameters]).to(dtype),
            torch.cat([gradient.reshape(-1) for gradient in gradients]).to(dtype),
            Slots(torch.cat([slot["momenta"] for slot in slots]), torch.cat([slot["second"] for slot in slots])),
            int(slots[0]["step"]),
            layout,
        )
        parts = zip(
            pack, slots, *(whole.split(layout.sizes) for whole in (change, new.momenta, new.second)), strict=True
        )
        for (parameter, multiplier), slot, moved, momenta, second in parts:
            slot["momenta"].copy_(momenta)
            slot["second"].copy_(second)
            parameter.add_(multiplier * moved.view(parameter.shape).to(parameter.dtype))

    def _slots(self, parameter: Tensor) -> dict[str, Any]:
        """What the rule remembers of a tensor, one step older."""
        slots: dict[str, Any] = self.state[parameter]
        if not slots:
            like: dict[str, Any] = {"device": parameter.device, "dtype": self._rule.output.weight.dtype}
            slots["step"] = 0
            slots["momenta"] = torch.zeros(parameter.numel(), len(DECAYS), **like)
            slots["second"] = torch.zeros(parameter.numel(), **like)
        slots["step"] = int(slots["step"]) + 1
        return slots


def _packs(
    wanted: Sequence[tuple[Tensor, float]], age: Callable[[Tensor], object]
) -> Iterator[list[tuple[Tensor, float]]]:
    """Tensors to be worked on together: of one device and age, and together not much more than `_PACK` parameters."""
    pack: list[tuple[Tensor, float]] = []
    size, kind = 0, None
    for parameter, multiplier in wanted:
        own = (parameter.device, age(parameter))
        if pack and (own != kind or size + parameter.numel() > _PACK):
            yield pack
            pack, size = [], 0
        pack.append((parameter, multiplier))
        size, kind = size + parameter.numel(), own
    if pack:
        yield pack


def _dense(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse:
        raise DomainError(
            f"a parameter of shape {tuple(parameter.shape)} has a sparse gradient",
            where="LearnedOptimizer",
            hint="make its embedding with sparse=False, or choose another optimizer",
        )
    return gradient

"""A learned update rule at work: its features, the step that it gives, and the optimiser that runs it.

A tensor W (r × c; of four dimensions, the last three are one) moves by ``Δ = −η · s · exp(λ) · ((1 + w_o) O + w_a A + w_m M)``.
The rule's network gives the log magnitude λ (kept within ±1) and the weights w of each tensor from its features, and how much of the
latest gradient and of the slow momentum is blended into the momentum B that O, A and M are made of:

- O: B made orthogonal, ``(B Bᵀ)^{-1/2} B · √max(r, c)`` (Jordan et al., "Muon: An Optimizer for Hidden Layers in Neural Networks", 2024);
- A: Adam's, ``B / (√v̂ + ε)``; M: the momentum itself, ``B / √(mean v̂)``.

s is 1 / √c, about what the entries of a weight begin with, and 0.05 for a bias or gain, whose O is A. A rule whose nominal direction is
Adam's has ``O = A`` and s = 0.02 everywhere. Every feature is scaled by its tensor, so that a rule fits tensors of any size and scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from mapsto.errors import DomainError
from mapsto.nn.networks.update_rule import DECAYS, SECOND_DECAY, TIMES, TREND_DECAY, UpdateRule

if TYPE_CHECKING:
    from mapsto.kinds import Network

__all__ = ["Layout", "LearnedOptimizer", "Rule", "Slots", "features", "orthogonal", "update", "updating_module"]

_TINY = 1e-12
_ADAM_EPSILON = 1e-8
_BOUND = 4.0
"""No feature is further from 0: a rare gradient is no reason for a step nobody has trained for."""
_MAGNITUDE = 1.0
"""No step is further than a factor of e from the nominal one, be it on networks much larger than those that a rule has seen."""
_VECTOR = 0.05
"""The scale s of biases and gains."""
_ADAM = 0.02
"""The scale s of all tensors where the nominal direction is Adam's: at the default rate that is Adam at 0.001."""
_NESTEROV = 0.1
"""The latest gradient's share of an orthogonal rule's momentum before training, Nesterov's."""
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_FACTORY = "mapsto.nn.networks.update_rule:update_rule"
_PACK = 2**20
"""Parameters, at least, that are worked on at once."""


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


class Rule(Protocol):
    """What gives outputs (S, OUTPUTS) for features (S, FEATURES): an `UpdateRule`, or copies of one."""

    @property
    def nominal(self) -> str:
        """The direction that it begins with."""
        ...

    @property
    def rate(self) -> float:
        """What every step is multiplied with."""
        ...

    def __call__(self, features: Tensor, /) -> Tensor: ...


class Slots(NamedTuple):
    """What the rule remembers of N parameters in S tensors."""

    momenta: Tensor
    """Means of the gradient at every decay, shape (len(DECAYS), N), not yet corrected for beginning at 0."""
    second: Tensor
    """Mean of the squared gradient, shape (N,)."""
    trend: Tensor
    """Mean cosine of a gradient and the momentum before it, shape (S,)."""


@dataclass(frozen=True)
class Layout:
    """Which of N parameters in a row belong to which tensor."""

    shapes: tuple[tuple[int, ...], ...]
    """(r, c) of a weight, (r,) of a bias or gain."""

    @staticmethod
    def of(shapes: Iterable[Sequence[int]]) -> Layout:
        """The layout of tensors of these shapes.

        >>> Layout.of([(2, 3, 5, 5), (2,), ()])
        Layout(shapes=((2, 75), (2,), (1,)))
        """
        known = [tuple(shape) for shape in shapes]
        return Layout(
            tuple((s[0], math.prod(s[1:])) if len(s) > 1 else (math.prod(s),) for s in known),
        )

    @cached_property
    def sizes(self) -> list[int]:
        """How many parameters each tensor has."""
        return [math.prod(shape) for shape in self.shapes]

    def on(self, nominal: str, like: Tensor) -> _Constants:
        """What a rule needs to know of the tensors, made once for a device and type."""
        return _constants(self, nominal, like.device, like.dtype)

    def mean_squares(self, values: Tensor) -> Tensor:
        """The mean squares of values (…, N) over each tensor, shape (…, S)."""
        norms = [torch.linalg.vector_norm(part, dim=-1) for part in values.split(self.sizes, -1)]
        return torch.stack(norms, -1).square() / values.new_tensor(self.sizes)

    def means(self, values: Tensor) -> Tensor:
        """The means of values (…, N) over each tensor, shape (…, S)."""
        return torch.stack([part.mean(-1) for part in values.split(self.sizes, -1)], -1)


class _Constants(NamedTuple):
    owners: Tensor
    """The number of the tensor that each parameter belongs to, shape (N,)."""
    made: tuple[bool, ...]
    """Whether a tensor's nominal direction is its momentum made orthogonal."""
    adam: Tensor
    """1 where it is not but Adam's, shape (S,)."""
    lengths: Tensor
    """The scale s of each tensor, shape (S,)."""
    features: Tensor
    """Columns (S, 3) of the tensors' sizes and kinds that the rule sees."""
    shift: Tensor
    """Log c of a weight, 0 of a vector, shape (S,)."""


@lru_cache(maxsize=64)
def _constants(layout: Layout, nominal: str, device: torch.device, dtype: torch.dtype) -> _Constants:
    shapes = layout.shapes
    weights = [len(shape) > 1 for shape in shapes]
    made = tuple(nominal == "orthogonal" and weight for weight in weights)
    short = _ADAM if nominal == "adam" else _VECTOR
    columns = [math.log(shape[-1]) if weight else 0.0 for shape, weight in zip(shapes, weights, strict=True)]
    sizes = [
        ((column - 4) / 4 * weight, (math.log(shape[0]) - 4) / 4, float(weight))
        for shape, column, weight in zip(shapes, columns, weights, strict=True)
    ]

    def tensor(values: Any) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return _Constants(
        owners=torch.repeat_interleave(torch.arange(len(shapes)), torch.tensor(layout.sizes)).to(device),
        made=made,
        adam=tensor([float(not orthogonal) for orthogonal in made]),
        lengths=tensor([shape[-1] ** -0.5 if o else short for shape, o in zip(shapes, made, strict=True)]),
        features=tensor(sizes),
        shift=tensor(columns),
    )


def orthogonal(matrix: Tensor) -> Tensor:
    """Matrices (…, r, c) of the same singular vectors, whose singular values are about 1, by five quintic Newton–Schulz steps.

    Values below a thousandth of the Frobenius norm come to less. A matrix of zeros stays.

    >>> orthogonal(torch.tensor([[0.0, 3.0], [-1.0, 0.0]])).round().tolist()
    [[0.0, 1.0], [-1.0, 0.0]]
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / ((x.square().sum((-2, -1), keepdim=True) + _TINY**2).sqrt() + _TINY)
    added = torch.addmm if x.ndim == 2 else torch.baddbmm
    first, third, fifth = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = added(x, added(gram, gram, gram, beta=third, alpha=fifth), x, beta=first)
    return x.mT if tall else x


def update(
    rule: Rule, parameters: Tensor, gradient: Tensor, slots: Slots, step: int, share: Tensor, layout: Layout
) -> tuple[Tensor, Slots]:
    """The change of N parameters (N,) at step 1, 2, … and what the rule then remembers.

    `share` (S,) is each tensor's learning rate over its highest so far. A pure function, differentiable. All tensors may have copies as
    their first dimension, which move each by itself.
    """
    seen, scale, new, momenta, root = features(parameters, gradient, slots, step, share, layout, rule.nominal)
    magnitude, latest, slow, base, *weights = rule(seen).unbind(-1)
    constants = layout.on(rule.nominal, gradient)
    length = constants.lengths * torch.exp(_MAGNITUDE * torch.tanh(magnitude / _MAGNITUDE)) * -rule.rate
    base, adam, plain = ((base + 1) * length, *(weight * length for weight in weights))
    if rule.nominal == "orthogonal":
        latest = latest + _NESTEROV
    spread = torch.stack([latest, slow, adam + base * constants.adam, plain / (scale + _ADAM_EPSILON)])
    latest, slow, adam, plain = spread.index_select(-1, constants.owners).unbind(0)
    fast, slower = momenta.unbind(-2)
    blend = fast + latest * (gradient - fast) + slow * (slower - fast)
    change = (adam / root + plain) * blend
    parts = list(change.split(layout.sizes, -1))
    for number, (shape, part) in enumerate(zip(layout.shapes, blend.split(layout.sizes, -1), strict=True)):
        if constants.made[number]:
            direction = orthogonal(part.unflatten(-1, shape)).flatten(-2)
            parts[number] = parts[number] + math.sqrt(max(shape)) * base[..., number, None] * direction
    return torch.cat(parts, -1), new


def features(
    parameters: Tensor,
    gradient: Tensor,
    slots: Slots,
    step: int,
    share: Tensor,
    layout: Layout,
    nominal: str = "orthogonal",
) -> tuple[Tensor, Tensor, Slots, Tensor, Tensor]:
    """Features (S, FEATURES) of tensors, and what they come from.

    Those are the root of each tensor's mean square gradient, shape (S,); what is remembered after the gradient; its momenta, corrected
    for beginning at 0, and the root of its mean square (N,).
    """
    decays = gradient.new_tensor(DECAYS)[:, None]
    momenta = decays * slots.momenta + (1 - decays) * gradient.unsqueeze(-2)
    second = SECOND_DECAY * slots.second + (1 - SECOND_DECAY) * gradient.square()
    corrections = (1 / (1 - torch.tensor(DECAYS, dtype=torch.float64) ** step)).to(gradient)
    corrected = momenta * corrections[:, None]
    root = (second / (1 - SECOND_DECAY**step) + _TINY**2).sqrt() + _ADAM_EPSILON  # the root of 0 has no derivative
    before = slots.momenta[..., 0, :]
    raw = torch.stack([gradient, before, parameters, root, *(corrected / root.unsqueeze(-2)).unbind(-2)])
    gg, bb, pp, vv, fast, slow = layout.mean_squares(raw)
    gb = layout.means(gradient * before)
    cosine = gb / ((gg + _TINY**2).sqrt() * (bb + _TINY**2).sqrt() + _TINY**2)
    trend = TREND_DECAY * slots.trend + (1 - TREND_DECAY) * cosine
    constants = layout.on(nominal, gradient)
    times = gradient.new_tensor([math.tanh(step / time - 1) for time in TIMES])
    found = torch.stack(
        [
            (torch.log(pp + 1e-6) + constants.shift) / 4,
            torch.log(fast + 1e-4) / 4,
            torch.log(slow + 1e-4) / 4,
            torch.log((gg + _TINY**2) / (vv + _TINY**2) + 1e-4) / 4,
            cosine,
            trend * 2,
            share,
            torch.log(share + 0.01) / 4,
        ],
        -1,
    )
    known = [constants.features, times.expand(len(constants.features), len(TIMES))]
    known = [part.expand(*found.shape[:-1], part.shape[-1]) for part in known]
    seen = torch.cat([known[0], found, known[1]], -1).clamp(-_BOUND, _BOUND)
    return seen, (vv + _TINY**2).sqrt(), Slots(momenta, second, trend), corrected, root


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
    >>> optimizer = LearnedOptimizer([weight], update_rule(nominal="adam"), lr=1.0)  # untrained: Adam with a rate of 0.001
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
            for parameter in wanted if group["weight_decay"] else ():
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
            for name in Slots._fields:
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
        slots = [self._slots(parameter, multiplier) for parameter, multiplier in pack]
        layout = Layout.of(parameter.shape for parameter in parameters)
        gradient = torch.cat([gradient.reshape(-1) for gradient in gradients]).to(dtype)
        change, new = update(
            rule,
            torch.cat([parameter.reshape(-1) for parameter in parameters]).to(dtype),
            gradient,
            Slots(
                torch.cat([slot["momenta"] for slot in slots], 1),
                torch.cat([slot["second"] for slot in slots]),
                torch.stack([slot["trend"] for slot in slots]),
            ),
            int(slots[0]["step"]),
            gradient.new_tensor([m / slot["highest"] if m else 1.0 for (_, m), slot in zip(pack, slots, strict=True)]),
            layout,
        )
        sizes = layout.sizes
        for name, parts in (
            ("momenta", new.momenta.split(sizes, 1)),
            ("second", new.second.split(sizes)),
            ("trend", new.trend.unbind(0)),
        ):
            for slot, part in zip(slots, parts, strict=True):
                slot[name].copy_(part)
        for (parameter, multiplier), moved in zip(pack, change.split(sizes), strict=True):
            parameter.add_(moved.view(parameter.shape).to(parameter.dtype), alpha=multiplier)

    def _slots(self, parameter: Tensor, multiplier: float) -> dict[str, Any]:
        """What the rule remembers of a tensor, one step older, and its highest multiplier."""
        slots: dict[str, Any] = self.state[parameter]
        if not slots:
            like: dict[str, Any] = {"device": parameter.device, "dtype": self._rule.output.weight.dtype}
            slots["step"], slots["highest"] = 0, 0.0
            slots["momenta"] = torch.zeros(len(DECAYS), parameter.numel(), **like)
            slots["second"] = torch.zeros(parameter.numel(), **like)
            slots["trend"] = torch.zeros((), **like)
        slots["step"] = int(slots["step"]) + 1
        slots["highest"] = max(float(slots["highest"]), multiplier)
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

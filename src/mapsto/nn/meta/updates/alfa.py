"""Gradient descent whose rates and decay a small network gives at every step: ``θ_l ← (1 − λ_{l,k} b_l) θ_l − α_{l,k} a_l g_l``.

``(a, b) = f(mean θ_1, …, mean θ_N, mean g_1, …, mean g_N)`` for N layers, f of two linear layers with a ReLU between (Baik, Choi, Choi,
Kim and Lee, "Meta-Learning with Adaptive Hyperparameters", 2020). A layer here is one tensor of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mapsto.errors import DomainError
from mapsto.nn.meta.updates.layerwise import rate_name

__all__ = ["decay_name", "first_tensors", "update"]

_FIRST, _SECOND = "~alfa.first", "~alfa.second"


def decay_name(parameter: str) -> str:
    """The name of the learner's tensor of decays (steps,) of a parameter."""
    return f"~decays.{parameter}"


def first_tensors(rates: Mapping[str, float], *, steps: int, decay: float) -> dict[str, Tensor]:
    """Tensors with which a learner begins at `rates` and at `decay` everywhere: the network's outputs are 1 whatever it is given.

    >>> sorted(first_tensors({"w": 0.1}, steps=2, decay=0.0))[:3]
    ['~alfa.first.bias', '~alfa.first.weight', '~alfa.second.bias']
    """
    size = 2 * len(rates)
    first = nn.Linear(size, size)
    found = {
        f"{_FIRST}.weight": first.weight.detach(),
        f"{_FIRST}.bias": first.bias.detach(),
        f"{_SECOND}.weight": torch.zeros(size, size),
        f"{_SECOND}.bias": torch.ones(size),
    }
    for name, rate in rates.items():
        found[rate_name(name)] = torch.full((steps,), rate)
        found[decay_name(name)] = torch.full((steps,), decay)
    return found


def update(
    point: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    step: int,
    rates: Mapping[str, float],
    tensors: Mapping[str, Tensor],
    memory: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Every parameter moved as the network says; after more steps than were trained, from the last one's rates.

    Raises `DomainError` where the network was made for another number of parameters.

    >>> own = first_tensors({"w": 0.5}, steps=1, decay=0.1)
    >>> update({"w": torch.ones(1)}, {"w": torch.ones(1)}, 0, {}, own, {})
    {'w': tensor([0.4000])}
    """
    size = len(tensors[f"{_SECOND}.bias"])
    if size != 2 * len(point):
        raise DomainError(
            f"the learner's rates are for {size // 2} tensors of parameters, the network has {len(point)} that adapt",
            hint="prune channels rather than change its layers, or train the learner anew",
        )
    seen = [tensor.mean() for tensor in point.values()]
    seen += [gradients[name].mean() if name in gradients else point[name].new_zeros(()) for name in point]
    hidden = linear(torch.stack(seen), tensors[f"{_FIRST}.weight"], tensors[f"{_FIRST}.bias"]).relu()
    given = linear(hidden, tensors[f"{_SECOND}.weight"], tensors[f"{_SECOND}.bias"])
    moved: dict[str, Tensor] = {}
    for place, name in enumerate(point):
        if name in gradients:
            learned, decays = tensors[rate_name(name)], tensors[decay_name(name)]
            at = min(step, len(learned) - 1)
            decay = decays[at] * given[len(point) + place]
            moved[name] = (1 - decay) * point[name] - learned[at] * given[place] * gradients[name]
    return moved

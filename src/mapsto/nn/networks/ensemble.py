"""Several classifiers as one: its scores are the logarithms of their mean probabilities.

``z = ln (1/K) Σ_k softmax(f_k(x))``, so that softmax(z) is the mean (Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable
Predictive Uncertainty Estimation Using Deep Ensembles", 2017). Each member keeps its factory, its edits and its own normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mapsto import discovery
from mapsto.errors import SpecError, StoreError
from mapsto.kinds import Edit, Factory

__all__ = ["Ensemble", "ensemble"]


class Ensemble(nn.Module):
    """Members are called one after another on the same input, normalised as the first one takes it."""

    def __init__(self, members: Sequence[nn.Module], normalisations: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        for number, (factor, shift) in enumerate(normalisations):
            self.register_buffer(f"factor_{number}", factor, persistent=False)
            self.register_buffer(f"shift_{number}", shift, persistent=False)
        self._alike = [bool((factor == 1).all() and (shift == 0).all()) for factor, shift in normalisations]

    def forward(self, x: Tensor) -> Tensor:
        logs: list[Tensor] = []
        for number, member in enumerate(self.members):
            given = x
            if not self._alike[number]:
                given = x * self.get_buffer(f"factor_{number}") + self.get_buffer(f"shift_{number}")
            logs.append(torch.log_softmax(member(given), 1))
        return torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))


def ensemble(members: Sequence[Mapping[str, Any]]) -> Ensemble:
    """The ensemble of such members: ``arch`` and ``edits`` as a stored network has them, ``factor`` and ``shift`` a channel.

    What a member is given is ``x · factor + shift``.

    >>> part = {"arch": {"name": "torch.nn:Identity", "arguments": {}}, "edits": [], "factor": [1.0], "shift": [0.0]}
    >>> from mapsto.kinds import trusting
    >>> with trusting("torch"):
    ...     both = ensemble([part, {**part, "factor": [-1.0]}])
    >>> both(torch.tensor([[1.0, 0.0]])).softmax(1).tolist()
    [[0.5, 0.5]]
    """
    if not members:
        raise SpecError("an ensemble of no members", where="ensemble", hint="give at least one")
    modules: list[nn.Module] = []
    normalisations: list[tuple[Tensor, Tensor]] = []
    for member in members:
        arch = member["arch"]
        module = Factory(name=arch["name"], arguments=arch["arguments"]).build()
        for tree in member["edits"]:
            module = _edit(tree).apply(module)
        modules.append(module)
        factor, shift = (torch.tensor(member[name], dtype=torch.float32) for name in ("factor", "shift"))
        shape = (1, -1, 1, 1) if len(factor) > 1 else (1,)
        normalisations.append((factor.view(shape), shift.view(shape)))
    return Ensemble(modules, normalisations)


def _edit(tree: Mapping[str, Any]) -> Edit:
    cls = discovery.find("edits", tree["name"])
    if tree["version"] > cls.version:
        raise StoreError(
            f"edit '{tree['name']}' has version {tree['version']}, this mapsto knows {cls.version}",
            hint="upgrade mapsto",
        )
    return cls(**tree["fields"])

"""A learned update rule before it has learnt anything: what `meta.optimizer` trains and `optimizer: learned` runs.

``Δ = −rate · exp(m) · (a + d)``: a network of two hidden layers gives each parameter's direction d and log magnitude m from its
gradient, momenta and second moment, all normalised by tensor, beside Adam's direction a (Metz et al., "Tasks, Stability, Architecture,
and Compute: Training More Effective Learned Optimizers", 2020; Harrison, Metz and Sohl-Dickstein, "A Closer Look at Learned
Optimization", 2022).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Json, Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import network_of

__all__ = ["UpdateRule"]


class UpdateRule(Mapping[None, Network]):
    """An untrained rule: (N, features) → direction and log magnitude (N, 2).

    >>> from mapsto import networks
    >>> rule = networks.update_rule()()
    >>> sum(tensor.numel() for tensor in rule.tensors.values())
    722
    """

    hidden: int = Field(default=16, ge=1, le=1024)
    """Units of each hidden layer; Metz et al. use 32, with the nominal term half of them do."""
    nominal: Literal["adam", "none"] = "adam"
    """`adam`: the rule corrects Adam, which it is before training; `none`: it has to find everything itself, as in Metz et al."""
    rate: float = Field(default=1e-3, gt=0)
    """What every step is multiplied with; Metz et al.'s and Adam's own is 0.001. Training learns the rest of the magnitude."""

    def apply(self, value: None, ctx: Context) -> Network:
        import torch

        from mapsto.nn.networks.update_rule import ELEMENTS, TENSORS

        arguments: dict[str, Json] = {"hidden": self.hidden, "nominal": self.nominal, "rate": self.rate}
        example = torch.zeros(2, ELEMENTS + TENSORS)
        return network_of(
            "mapsto.nn.networks.update_rule:update_rule", arguments, Preprocessing(kind="none"), example=example
        )

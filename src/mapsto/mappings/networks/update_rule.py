"""A learned update rule before it has learnt anything: what `meta.optimizer` trains and `optimizer: learned` runs.

``Δ = −rate · s · exp(λ) · ((1 + w_o) O + w_a A + w_m M)``: for each tensor a small network gives the magnitude λ and the weights
of directions from how its training goes: O, the momentum made orthogonal (Jordan et al., "Muon: An Optimizer for Hidden Layers in Neural
Networks", 2024), A, Adam's, and M, the momentum itself (after Metz et al., "VeLO: Training Versatile Learned Optimizers by
Scaling Up", 2022; Harrison, Metz and Sohl-Dickstein, "A Closer Look at Learned Optimization", 2022).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Json, Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import network_of

__all__ = ["UpdateRule"]


class UpdateRule(Mapping[None, Network]):
    """An untrained rule: (S, features) of tensors → (S, outputs), all 0 at first.

    >>> from mapsto import networks
    >>> rule = networks.update_rule()()
    >>> sum(tensor.numel() for tensor in rule.tensors.values())
    326
    """

    hidden: int = Field(default=16, ge=1, le=1024)
    """Units of the hidden layer."""
    nominal: Literal["orthogonal", "adam"] = "orthogonal"
    """What the rule is before training and corrects: `orthogonal`, of weights the momentum made orthogonal, of biases and gains Adam's
    direction; or `adam` for all."""
    rate: float = Field(default=0.05, gt=0)
    """What every step is multiplied with. At 0.05 an entry of a weight with n inputs moves by about 0.05 / √n, a bias by up to 0.0025;
    Adam's steps are up to 0.001. Training learns the rest of the magnitude."""

    version: ClassVar[int] = 2

    def apply(self, value: None, ctx: Context) -> Network:
        import torch

        from mapsto.nn.networks.update_rule import FEATURES

        arguments: dict[str, Json] = {"hidden": self.hidden, "nominal": self.nominal, "rate": self.rate}
        example = torch.zeros(2, FEATURES)
        return network_of(
            "mapsto.nn.networks.update_rule:update_rule", arguments, Preprocessing(kind="none"), example=example
        )

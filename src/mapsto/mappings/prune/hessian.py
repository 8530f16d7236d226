"""Drop the channels that the loss would miss least by its second-order change: optimal brain damage, for whole channels.

``I_c = Σ_m Σ_{w ∈ m[c]} ½ h_w w² / M`` with m over the M tensors that make, scale and read channel c, and h the Hessian's diagonal
(LeCun, Denker and Solla, "Optimal Brain Damage", 1990). It is estimated as the Fisher information, ``h = n · mean over batches of n
samples (∂L/∂w)²``, exact for n = 1 (Theis et al., "Faster Gaze Prediction with Dense Networks and Fisher Pruning", 2018), or from
random signs v as ``h = mean v ⊙ Hv`` (Bekas, Kokiopoulou and Saad, "An Estimator for the Diagonal of a Matrix", 2007).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AbcMapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.criterion import Criterion
from mapsto.nn.prune.data_driven import DataDriven, Loss

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mapsto.nn.prune.dependency_groups import Group
    from mapsto.nn.prune.structured import Importance

__all__ = ["Hessian"]


class Hessian(DataDriven, Criterion):
    """The network with the channels of lowest saliency dropped until the budget is met.

    Raises `SpecError` unless exactly one budget and one of `data` and `tasks` are given, `DataError` for data without
    classes or with NaN, and `DomainError` for a network that the data does not fit, that is quantized, or that cannot be made
    as small.

    >>> from mapsto import datasets, evaluate, networks, prune, train
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    >>> big = train.supervised(data=digits, epochs=3)(net)
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> settings = {"macs": 0.6, "ranking": "per_layer"}
    >>> accuracy(Hessian(data=digits, batches=30, **settings)(big)) > accuracy(prune.random(**settings)(big)) + 10
    True
    """

    batches: int = Field(default=100, ge=1)
    """Batches (or episodes) that the curvature is a mean over."""
    batch_size: int = Field(default=8, ge=1)
    """n, samples of a batch, with `data`; small ones estimate the Fisher information with less noise."""
    curvature: Literal["fisher", "hutchinson"] = "fisher"
    """How h is estimated: by squared gradients, never negative, or by Hessian-vector products, twice the work."""
    probes: int = Field(default=1, ge=1)
    """Random vectors v of a batch, with `hutchinson`."""
    normalise: bool = True
    """Importance in units of its layer's mean. Without, changes of the loss are compared as they are."""

    def importance(self, value: Network, ctx: Context) -> Importance:
        from mapsto.nn.prune.importance import group_means, normalised

        def importance(module: nn.Module, groups: Sequence[Group]) -> AbcMapping[str, NDArray[np.float64]]:
            module = module.to(ctx.device).requires_grad_(True)
            weights = dict(module.named_parameters())
            curvature = self._curvature(weights, ctx.track(self.losses(value, module, ctx), what="curvature"), ctx)
            saliency = {name: 0.5 * h * weights[name].detach().square() for name, h in curvature.items()}
            # Away from a minimum an estimate of the Hessian may be negative; such a channel is no more dispensable than one of 0.
            scores = {group.name: group_means(saliency, group).clip(0) for group in groups}
            return normalised(scores, wanted=self.normalise)

        return importance

    def _curvature(self, weights: AbcMapping[str, Tensor], losses: Iterable[Loss], ctx: Context) -> dict[str, Tensor]:
        """Name → diagonal of the Hessian, shaped as the weight; a weight that the loss does not depend on is not in it."""
        import torch

        from mapsto.nn.prune.data_driven import gradients

        generator = torch.Generator().manual_seed(ctx.seed_for("probes"))
        sums: dict[str, Tensor] = {}
        count = 0
        for loss in losses:
            first = gradients(loss.value, weights, differentiable=self.curvature == "hutchinson")
            if self.curvature == "fisher":
                terms = [{name: loss.samples * gradient.square() for name, gradient in first.items()}]
            else:
                terms = [_signed(first, weights, generator) for _ in range(self.probes)]
            for found in terms:
                for name, term in found.items():
                    sums[name] = sums[name] + term if name in sums else term
            count += len(terms)
        return {name: total / count for name, total in sums.items()}


def _signed(
    first: AbcMapping[str, Tensor], weights: AbcMapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """``v ⊙ Hv`` for one v of random signs, from the first derivatives."""
    import torch

    from mapsto.nn.prune.data_driven import gradients

    signs = {
        name: torch.randint(0, 2, gradient.shape, generator=generator).mul(2).sub(1).to(gradient)
        for name, gradient in first.items()
    }
    along = torch.stack([(gradient * signs[name]).sum() for name, gradient in first.items()]).sum()
    products = gradients(along, weights, keep_graph=True)
    return {name: product * signs[name] for name, product in products.items() if name in signs}

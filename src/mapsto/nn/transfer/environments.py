"""Training on several environments: a mini-batch of each a step, and how far what a network has learnt differs from one to another.

The gradient of a scale (`scale_gradient`) is that of Arjovsky, Bottou, Gulrajani and Lopez-Paz, "Invariant Risk Minimization", 2019; the
distance of features is that of Sun and Saenko, "Deep CORAL", 2016, with means beside covariances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mapsto.data.checks import require_classes, require_finite, require_some
from mapsto.errors import DataError
from mapsto.kinds import Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.batches import Batch, Batches
from mapsto.nn.transfer.coral import covariance_distance

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import Tensor

    from mapsto.context import Context

__all__ = ["EnvironmentBatches", "environments_of", "feature_distance", "scale_gradient"]


class EnvironmentBatches:
    """A mini-batch of every environment a step, each in an order of its own.

    Parameters
    ----------
    environments
        What to draw from.
    batch_size
        Samples of an environment a step; of a smaller environment, all.
    generator
        A stream of its own for its parts.
    fabric
        Says how many processes share a batch.
    """

    workers = 1

    def __init__(
        self,
        environments: Sequence[Samples],
        batch_size: int,
        generator: Callable[..., np.random.Generator],
        fabric: Fabric,
    ) -> None:
        def batches(place: int, samples: Samples) -> Batches:
            return Batches(samples, batch_size, lambda epoch: generator(f"order of environment {place}", epoch), fabric)

        self._parts = [batches(place, samples) for place, samples in enumerate(environments)]

    @property
    def per_epoch(self) -> int:
        """Steps in which the largest environment is gone through once."""
        return max(part.per_epoch for part in self._parts)

    def __getitem__(self, step: int) -> list[Batch]:
        return [part[step] for part in self._parts]


def environments_of(sources: Sequence[DataSource], ctx: Context, *, where: str) -> list[Samples]:
    """The labelled samples of each environment.

    Raises
    ------
    DataError
        An environment without samples, with NaN, with fewer than two classes, of other classes or with samples of another shape.
    """
    found = [require_some(ctx.dataset(source), where=f"{where}: environments[{n}]") for n, source in enumerate(sources)]
    first = found[0]
    for number, samples in enumerate(found):
        place = f"{where}: environments[{number}]"
        require_finite(samples.inputs, where=place)
        require_classes(samples, where=place)
        if samples.classes != first.classes:
            raise DataError(
                f"classes {list(samples.classes)[:5]}; those of the first environment are {list(first.classes)[:5]}",
                where=place,
                hint="give every environment the same classes",
            )
        if (samples.inputs.shape[1:], samples.inputs.dtype) != (first.inputs.shape[1:], first.inputs.dtype):
            raise DataError(
                f"samples of shape {samples.inputs.shape[1:]}, {samples.inputs.dtype}; those of the first environment are of shape "
                f"{first.inputs.shape[1:]}, {first.inputs.dtype}",
                where=place,
                hint="give samples of the same size, channels and columns",
            )
    return found


def scale_gradient(scores: Tensor, labels: Tensor) -> Tensor:
    """``∂/∂w mean_i CE(w s_i, y_i)`` at w = 1, a scalar, of scores (N, K) and classes (N,): 0 where no common factor lowers the loss.

    >>> import torch
    >>> float(scale_gradient(torch.zeros(3, 2), torch.tensor([0, 1, 1])))
    0.0
    >>> float(scale_gradient(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))) < 0  # a larger factor would be better
    True
    """
    expected = (scores.softmax(1) * scores).sum(1)
    return (expected - scores.gather(1, labels[:, None])[:, 0]).mean()


def feature_distance(first: Tensor, second: Tensor) -> Tensor:
    """``‖μ_a − μ_b‖² / D + ‖C_a − C_b‖² / 4D²`` of features (N, D) and (M, D), a scalar.

    >>> import torch
    >>> float(feature_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[-2.0], [2.0]])))
    9.0
    """
    return (first.mean(0) - second.mean(0)).square().mean() + covariance_distance(first, second)

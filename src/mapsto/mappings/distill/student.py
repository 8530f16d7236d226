"""Make a student out of its teacher: the same family, narrower or shallower, started from a choice of the teacher's own weights.

``θ′ = w[K_out][:, K_in]`` with K the channels whose filters are largest, layer by layer, along the whole network, so that they fit
(Xu et al., "Initializing Models with Larger Ones", 2024); whole blocks of a residual network are left out, layers of a plain
one are merged with the next. It trains faster than a student that begins anew; distil it next.
"""

from __future__ import annotations

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Student"]


class Student(Mapping[Network, Network]):
    """A fresh network of the teacher's family (``vgg``, ``resnet_cifar``, ``conv4``) with a part of its weights.

    Unlike a pruned network it has no edits: it is what the factory gives for the smaller sizes.

    Before any training, half of a trained teacher's channels know something, those of a fresh network nothing:

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=30)
    >>> teacher, fresh = (networks.conv4(data=digits, width=width, blocks=2, classes="data")(seed=0) for width in (12, 6))
    >>> student = Student(width=0.5)(train.supervised(data=digits, epochs=6, batch_size=50)(teacher))
    >>> student.arch == fresh.arch
    True
    >>> accuracies = [evaluate.accuracy(data=digits)(each).metrics["accuracy"].value for each in (fresh, student)]
    >>> accuracies[0] + 10 < accuracies[1]
    True
    """

    width: float = Field(default=0.5, gt=0, le=1)
    """Share of the channels of each layer, the most important ones; a half costs about a quarter of the multiplications."""
    depth: int | None = Field(default=None, ge=1)
    """Layers, as the factory counts them: 8, 11, 13, 16 of `vgg`, 8, 20, 32, 44, 56 of `resnet_cifar`, blocks of `conv4`; by
    default as many as the teacher has."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` for another family, an edited teacher (but for its head), or one that is not so deep."""
        from mapsto.nn.distill.student_init import derived

        return derived(value, width=self.width, depth=self.depth)

"""Let an embedding label the queries of a task together: class means move towards them, and near queries get the same label.

``y_q ← softmax_k(−s ‖f(q) − c_k‖² + λ Σ_p w_qp y_pk)``, repeated, with w of the nearest neighbours and class means c that were rectified
by the queries (Ziko et al., "Laplacian Regularized Few-Shot Learning", 2020). Nothing is trained: it is another way to adapt.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Adaptation, Json, Network
from mapsto.mapping import Mapping

__all__ = ["Transductive"]


class Transductive(Mapping[Network, Network]):
    """A learner from a learner or a trained network, whose answer to a query depends on the task's other queries.

    It gains most with one shot and many queries, and where a task's queries are of its classes in about equal numbers.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> learner = meta.transductive()(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=15, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 1)
    True
    """

    weight: float = Field(default=1.0, ge=0)
    """λ: how much the labels of a query's neighbours count, in units of a logarithm of probability; 0.1 to 1 in the paper."""
    neighbours: int = Field(default=3, ge=1)
    """Queries that a query is near to; 3 in the paper."""
    steps: int = Field(default=20, ge=0)
    """Repetitions; 20 in the paper."""
    rectify: bool = True
    """Whether class means move towards the queries first (Liu et al., "Prototype Rectification for Few-Shot Learning", 2020)."""
    distance: Literal["euclidean", "cosine"] | None = None
    """How embeddings are compared. None: the learner's own way if it goes by class means, else `cosine`."""
    scale: float | None = Field(default=None, gt=0)
    """s. None: the learner's own if it goes by class means, else 10."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DomainError` where the network has no embedding."""
        from mapsto.nn.meta.adaptation import centroid
        from mapsto.nn.network.head import headless

        own = value.adaptation.settings if value.adaptation and value.adaptation.method == "centroid" else None
        distance, scale = "cosine", 10.0
        if own is not None:
            distance = "cosine" if centroid.is_cosine(own) else "euclidean"
            scale = centroid.scale_of(own)
        settings: dict[str, Json] = {
            "distance": self.distance or distance,
            "scale": self.scale or scale,
            "weight": self.weight,
            "neighbours": self.neighbours,
            "steps": self.steps,
            "rectify": self.rectify,
        }
        module = value.module()
        edit, signature = headless(value, module)
        adaptation = Adaptation(method="laplacian", settings=settings)
        return value.with_module(module, *([edit] if edit else []), signature=signature, adaptation=adaptation)

"""Let the labelled examples themselves be the classifier: those whose embeddings are nearest vote by how near they are.

``p_k(x) ∝ ε + Σ_{i among the n nearest} y_ik exp((cos(u, u_i) − cos(u, u_1)) / T)`` with u the root of the embedding less the examples'
mean (Cover and Hart, "Nearest Neighbor Pattern Classification", 1967; the weights as in Wu et al., "Unsupervised Feature Learning via
Non-Parametric Instance Discrimination", 2018). Nothing is assumed of a class's shape; the network grows with the examples.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping

__all__ = ["Nearest"]


class Nearest(Mapping[Network, Network]):
    """A classifier for the classes of `data`, which holds its examples; the embedding stays as it is.

    >>> from mapsto import datasets, networks
    >>> digits = datasets.digits(size=16)
    >>> reader = Nearest(data=datasets.subset(data=digits, per_class=5))(networks.conv4(data=digits, width=16)())
    >>> reader.tensors["classifier.votes"].shape
    torch.Size([50, 10])
    """

    data: DataSource
    """The labelled examples, at least one of each class. They travel with the network, as embeddings."""
    neighbours: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """How many examples vote. `auto`: the likeliest of 1 to 30 for examples that were not learnt from, 10 where nothing can be left out."""
    temperature: float = Field(default=0.07, gt=0)
    """T, in units of a cosine: smaller lets the nearest decide."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: the votes of each class together weigh as much as any other's."""

    def apply(self, value: Network, ctx: Context) -> Network:
        """Raises `DataError` for fewer than two classes, an empty class or NaN, `DomainError` where there is no embedding."""
        from mapsto.nn.adapt import nearest
        from mapsto.nn.adapt.examples import examples_of, with_votes

        examples = examples_of(value, self.data, ctx, where="adapt.nearest", class_weights=self.class_weights)
        features, labels, weights = examples.features, examples.labels, examples.weights
        neighbours = self.neighbours
        if neighbours == "auto":
            neighbours, losses = nearest.chosen(
                features,
                labels,
                examples.outputs,
                ctx.random("folds"),
                temperature=self.temperature,
                weights=weights,
            )
            if losses:
                tried = ", ".join(f"{each}: {loss:.3f}" for each, loss in losses.items())
                ctx.note(f"neighbours: {neighbours} was chosen by cross-validated log-loss ({tried})")
        found = nearest.fit(
            features, labels, examples.outputs, neighbours=neighbours, temperature=self.temperature, weights=weights
        )
        return with_votes(value, examples, found)

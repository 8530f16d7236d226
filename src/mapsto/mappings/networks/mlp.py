"""A multilayer perceptron for rows of numbers: tables, embeddings computed before, and regression.

``f(x) = σ(W_2 σ(W_1 x + b_1) + b_2) …`` (Rumelhart, Hinton and Williams, "Learning Representations by Back-propagating Errors", 1986).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.network.build import count, network_of

__all__ = ["Mlp"]


class Mlp(Mapping[None, Network]):
    """A fresh multilayer perceptron, by default that of MAML's sinusoids: one number in, two layers of 40.

    With `widths` empty it is the identity: embeddings that were computed before stay as they are.

    >>> Mlp(inputs=384, widths=())().signature.outputs[0].shape
    ('N', 384)
    """

    inputs: int | None = Field(default=None, ge=1)
    """Numbers in a row; by default those of `data`, else 1."""
    widths: tuple[PositiveInt, ...] = (40, 40)
    """Of the hidden layers, the last of which gives the embedding; Finn et al., 2017, have 40 and 40 for sinusoids."""
    activation: Literal["relu", "tanh", "gelu", "silu"] = "relu"
    """After each hidden layer."""
    classes: PositiveInt | Literal["data"] | None = None
    """Outputs: a number of classes or of values to predict, `data` for the classes of `data`, or none: the output is the
    embedding. A step that trains on tasks gives it the head that these need."""
    data: DataSource | None = None
    """A data set of rows that gives `inputs` and class names."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DomainError` where the data holds no rows, or another number of columns, or names are asked of no data."""
        import torch

        where = "networks.mlp"
        samples = ctx.dataset(self.data) if self.data is not None else None
        inputs = self.inputs or (samples.inputs.shape[-1] if samples is not None else 1)
        if samples is not None and (samples.preprocessing.kind != "none" or samples.inputs.ndim != 2):
            raise DomainError(
                f"the data holds no rows but samples of shape {samples.inputs.shape[1:]}",
                where=where,
                hint="choose a network for images, or data of shape (N, D)",
            )
        if samples is not None and samples.inputs.shape[1] != inputs:
            raise DomainError(
                f"inputs is {inputs}, but the data has {samples.inputs.shape[1]} columns",
                where=where,
                hint="leave inputs out",
            )
        if self.classes == "data" and samples is None:
            raise DomainError("classes are asked of the data, but there is none", where=where, hint="give data")
        names = samples.classes if samples is not None and self.classes == "data" else None
        if isinstance(self.classes, int):
            names = tuple(map(str, range(self.classes)))
        return network_of(
            "mapsto.nn.networks.mlp:mlp",
            {
                "inputs": inputs,
                "widths": list(self.widths),
                "activation": self.activation,
                "classes": count(names),
            },
            samples.preprocessing if samples is not None else Preprocessing(kind="none"),
            classes=names,
            example=torch.zeros(2, inputs),
        )

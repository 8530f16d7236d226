"""A multilayer perceptron for rows of numbers: linear layers with a nonlinearity after each, then the classifier.

Rumelhart, Hinton and Williams, "Learning Representations by Back-propagating Errors", 1986.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from mapsto.nn.networks._checks import at_least, classifier_of, one_of

__all__ = ["ACTIVATIONS", "mlp"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}


class Mlp(nn.Module):
    """Hidden layers, whose output is the embedding, then the classifier; with no hidden layer a row is its own embedding."""

    def __init__(self, *, inputs: int, widths: Sequence[int], activation: str, classes: int | None) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.features = nn.Sequential(*layers)
        self.embedding = sizes[-1]
        self.classifier = classifier_of(self.embedding, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Rows (N, inputs) → embeddings (N, D)."""
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def mlp(
    *, inputs: int = 1, widths: Sequence[int] = (40, 40), activation: str = "relu", classes: int | None = None
) -> nn.Module:
    """A multilayer perceptron.

    Parameters
    ----------
    inputs
        Numbers in a row.
    widths
        Of the hidden layers; with none a row is its own embedding.
    activation
        ``relu``, ``tanh``, ``gelu`` or ``silu``, after each hidden layer.
    classes
        Outputs of the linear classifier: classes, or numbers to predict; None for an embedding, shape (N, widths[-1]).

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> import torch
    >>> mlp(inputs=3, widths=[8], classes=2)(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    >>> mlp(inputs=3, widths=[])(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """
    where = "mlp"
    at_least(inputs, 1, name="inputs", where=where)
    for width in widths:
        at_least(width, 1, name="widths", where=where)
    one_of(activation, tuple(ACTIVATIONS), name="activation", where=where)
    return Mlp(inputs=inputs, widths=widths, activation=activation, classes=classes)

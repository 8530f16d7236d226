"""Any image model of timm by its name (extra ``timm``, which needs torchvision).

Wightman, "PyTorch Image Models", 2019.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

from torch import Tensor, nn

from mapsto.errors import DomainError, MissingExtra, nearest
from mapsto.nn.networks._checks import classifier_of

__all__ = ["timm"]


class Timm(nn.Module):
    """A timm model without its head, and a classifier by the common convention."""

    def __init__(self, body: nn.Module, classes: int | None) -> None:
        super().__init__()
        self.body = body
        self.embedding = int(cast("Any", body).num_features)
        self.classifier = classifier_of(self.embedding, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def timm(*, name: str, classes: int | None = None, channels: int = 3, pretrained: bool = False) -> nn.Module:
    """A timm model with pooled features.

    Parameters
    ----------
    name
        As ``timm.list_models()`` gives it.
    classes
        Outputs of a new linear classifier; None for the embedding.
    channels
        Of the image.
    pretrained
        Fetch timm's weights (from its model hub).

    Raises
    ------
    MissingExtra
        timm or torchvision is not installed.
    DomainError
        There is no such model; the message names the nearest.
    """
    try:
        library: Any = importlib.import_module("timm")
    except ImportError as error:
        raise MissingExtra("timm (with torchvision)", "timm", where="networks.timm") from error
    if name not in library.list_models():
        raise DomainError(
            f"timm has no model '{name}'", where="networks.timm", hint=nearest(name, library.list_models())
        )
    body = library.create_model(name, pretrained=pretrained, in_chans=channels, num_classes=0)
    return Timm(body, classes)

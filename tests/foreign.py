"""Small networks of kinds that mapsto has none of: parts of detectors, recurrent ones, transformers, dense outputs; and data for any."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mapsto.kinds import Dataset, Preprocessing, Samples
from tests.nets import block


class ConvNormSilu(nn.Module):
    """As in YOLOv8."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(outputs), nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class C2f(nn.Module):
    """One half of the channels goes on, the other through residual blocks, and all are put together."""

    def __init__(self, channels: int, *, split: Literal["chunk", "split"] = "chunk") -> None:
        super().__init__()
        half = channels // 2
        self.half, self.split = half, split
        self.first, self.last = ConvNormSilu(channels, channels), ConvNormSilu(3 * half, channels)
        self.inner = nn.Sequential(ConvNormSilu(half, half, 3), ConvNormSilu(half, half, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = list(x.chunk(2, 1) if self.split == "chunk" else torch.split(x, self.half, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """A stem, a C2f block and a 1×1 convolution, whose means over the map are the output."""

    def __init__(self, split: Literal["chunk", "split"] = "chunk") -> None:
        super().__init__()
        self.split = split
        self.stem, self.block, self.head = ConvNormSilu(3, 8, 3, 2), C2f(8, split=split), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x))).mean((2, 3))


class Recurrent(nn.Module):
    """A recurrent layer and a linear head on its last step."""

    def __init__(self, kind: Literal["LSTM", "GRU", "RNN"] = "LSTM", *, bidirectional: bool = False) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(32, 32, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(64 if bidirectional else 32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Encoder(nn.Module):
    """Transformer layers of torch's own, and a head on the mean."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Selecting(nn.Module):
    """The greatest of a layer's results go on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, _ = self.first(x).topk(8, 1)
        return self.second(values - values.max(1, keepdim=True).values)


class UNet(nn.Module):
    """Scores of classes for every pixel, (N, classes, H, W)."""

    def __init__(self, classes: int = 3, width: int = 8, *, upsample: bool = False) -> None:
        super().__init__()
        self.classes, self.width, self.upsample = classes, width, upsample
        self.down1 = nn.Sequential(*block(3, width))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), *block(width, 2 * width))
        self.up = (
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, width, 3, padding=1))
            if upsample
            else nn.ConvTranspose2d(2 * width, width, 2, 2)
        )
        self.join, self.out = nn.Sequential(*block(2 * width, width)), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down1(x)
        return self.out(self.join(torch.cat([fine, self.up(self.down2(fine))], 1)))


class Noise(Dataset):
    """Standard normal inputs of any shape, with numbers of classes that mean nothing."""

    shape: tuple[int, ...]
    """Of one sample."""
    count: int = 32
    """How many."""
    classes: int = 4
    """How many classes."""

    def fingerprint(self) -> str:
        return f"noise {self.shape} {self.count} {self.classes}"

    def open(self) -> Samples:
        return Samples(
            inputs=np.random.default_rng(0).standard_normal((self.count, *self.shape)).astype(np.float32),
            labels=np.arange(self.count) % self.classes,
            classes=tuple("abcdefgh"[: self.classes]),
            preprocessing=Preprocessing(kind="none"),
        )


class Tokens(nn.Module):
    """An embedding of token ids (N, L), a transformer's layer, and a head on the greatest value over the tokens."""

    def __init__(self, vocabulary: int = 40, classes: int = 2) -> None:
        super().__init__()
        self.vocabulary, self.classes = vocabulary, classes
        self.tokens = nn.Embedding(vocabulary, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.tokens(x)).amax(1))

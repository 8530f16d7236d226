"""Small convolutional networks whose batch norms are settled, as after training, and images that they tell apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mapsto.kinds import Dataset, Factory, Network, Preprocessing, Samples, Signature, TensorSpec, detached
from mapsto.nn.edits.fold_batch_norm import FoldBatchNorm, foldable_pairs
from mapsto.nn.edits.quantizers import Quantizers
from mapsto.nn.network.call_sites import trace
from mapsto.nn.quantize.calibration import calibrate
from mapsto.nn.quantize.placement import thin_first_layer
from mapsto.nn.quantize.post_training import needs_reduced_range


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class Plain(nn.Module):
    """VGG's shape: convolutions, max pooling, a global mean."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(*block(1, 8), nn.MaxPool2d(2), *block(8, 12), *block(12, 12), nn.MaxPool2d(2))
        self.embedding = 12
        self.classifier = nn.Linear(12, classes) if classes else nn.Identity()

    def embed(self, x: Tensor) -> Tensor:
        return self.features(x).mean((-1, -2))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class Residual(nn.Module):
    """Padded and projected shortcuts, an in-place add, leaky and clamped rectifiers."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.conv1, self.bn1 = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.short = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(16, classes)

    def embed(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.leaky_relu(y, 0.1)
        x = F.relu(self.bn3(self.conv3(x)) + self.short(x))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.drop(self.embed(x)))


class Padded(nn.Module):
    """Pads on one side more than on the other, as TensorFlow's "same", and once with what is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(n, 8, 3, 2, bias=False) for n in (1, 8, 8))
        self.norm, self.classifier = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.first(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu6(self.second(F.pad(x, (0, 1, 1, 2))))
        x = self.third(F.pad(x, (1, 1, 1, 1), value=1.0))
        return self.classifier(x.mean((-1, -2)))


class Joined(nn.Module):
    """Concatenates two maps of other scales; pads by the word ``same``, with an even kernel too, for which one side gets more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*block(1, 8))
        self.first = nn.Sequential(nn.Conv2d(8, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, (1, 4), padding="same", groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.mix = nn.Sequential(nn.Conv2d(16, 8, 1, padding="valid", bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.classifier(self.mix(torch.cat([self.first(x), 3 * self.second(x)], 1)).mean((-1, -2)))


class OneAxis(nn.Module):
    """Convolutions over one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.classifier = nn.BatchNorm2d(1), nn.Linear(12, 5)
        self.first, self.second = nn.Conv1d(16, 8, 3, padding="same"), nn.Conv1d(8, 12, 4, padding="same", dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.norm(x).squeeze(1)))
        return self.classifier(F.relu(self.second(x)).mean(-1))


class Depthwise(nn.Module):
    """A filter for each channel, all of its weights as great as can be, between two convolutions over all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.filter = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.mix, self.norm, self.classifier = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        nn.init.constant_(self.filter.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.filter(F.relu(self.widen(x))))
        return self.classifier(F.relu(self.norm(self.mix(x))).mean((-1, -2)))


class Eigen(nn.Module):
    """Asks for eigenvalues, which no runtime's operators give."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.classifier = nn.BatchNorm2d(1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).squeeze(1)
        return self.classifier(torch.linalg.eigvalsh(x @ x.transpose(1, 2)))


def settled(module: nn.Module) -> nn.Module:
    """As after training: statistics that are not 0 and 1, outputs that differ from sample to sample."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    module.train()
    with torch.no_grad():
        for _ in range(20):
            module(images(32))
    return module.eval()


def images(count: int, seed: int = 1) -> Tensor:
    """Smooth blobs, so that global means differ between images."""
    coarse = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(16, 16), mode="bilinear")


def network(kind: type[nn.Module], **arguments: int) -> Network:
    torch.manual_seed(0)
    module = settled(kind(**arguments))
    classes = module(images(1)).shape[1]
    return Network(
        arch=Factory(name=f"{__name__}:{kind.__name__}", arguments=arguments),
        tensors=detached(module.state_dict()),
        signature=Signature(
            inputs=(TensorSpec(name="image", dtype="float32", shape=("N", 1, 16, 16)),),
            outputs=(TensorSpec(name="scores", dtype="float32", shape=("N", classes)),),
            preprocessing=Preprocessing(channels=1, size=(16, 16), mean=(0.5,), std=(0.25,), ink="light"),
            classes=tuple("abcdefgh"[:classes]) if module.classifier.__class__ is nn.Linear else None,
        ),
    )


def quantized(given: Network, *, first: bool = False, **settings: object) -> Network:
    module = given.module()
    fold = FoldBatchNorm(pairs=foldable_pairs(module, trace(module, images(2))))
    fold.apply(module)
    skip = () if first else thin_first_layer(module, trace(module, images(2)))
    settings = {"reduce_range": needs_reduced_range()} | settings
    attach = Quantizers(quantizers=calibrate(module, images(256).split(64), skip=skip, **settings))  # type: ignore[arg-type]
    return given.with_module(attach.apply(module), fold, attach)


class Blobs(Dataset):
    """Smooth blobs as pictures."""

    count: int = 600
    """How many."""

    def fingerprint(self) -> str:
        return f"blobs {self.count}"

    def open(self) -> Samples:
        pixels = images(self.count).mul(64).add(128).clamp(0, 255).numpy().astype(np.uint8)
        return Samples(
            inputs=pixels,
            labels=np.arange(self.count) % 5,
            classes=tuple("abcde"),
            preprocessing=Preprocessing(channels=1, size=(16, 16), mean=(0.5,), std=(0.25,), ink="light"),
        )

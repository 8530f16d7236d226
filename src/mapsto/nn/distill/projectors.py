"""Modules that only a distillation needs, trained with the student and then left behind.

1×1 convolutions where channels differ in number (Romero et al., "FitNets", 2015), the projections and the memory of contrastive
distillation (Tian et al., 2020), and the fusion of deep with shallow layers of knowledge review (Chen et al., 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.distill.teacher_student import Projectors

__all__ = ["ContrastMemory", "EarlyExits", "KeptChannels", "LinearProjections", "ReviewFusions"]


class LinearProjections(Projectors):
    """Each of the student's layers by a linear map, at every place, to as many channels as the teacher's has, and batch norm.

    The batch norm keeps training stable at the rates that students are trained with (as in Tian et al., 2020).

    Parameters
    ----------
    ours, theirs
        Layers (N, C, H, W) or (N, D) for an example.

    Raises
    ------
    DomainError
        A layer is neither, or a map stands against a vector.
    """

    def __init__(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(_linear(own, their) for own, their in zip(ours, theirs, strict=True))

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [part(layer) for part, layer in zip(self.maps, ours, strict=True)], theirs


def _linear(ours: Tensor, theirs: Tensor) -> nn.Module:
    if ours.ndim != theirs.ndim or ours.ndim not in (2, 4):
        raise DomainError(
            f"a layer of the student has shape {tuple(ours.shape)}, the teacher's {tuple(theirs.shape)}",
            hint="match maps (N, C, H, W) with maps and vectors (N, D) with vectors",
        )
    inputs, outputs = ours.shape[1], theirs.shape[1]
    if ours.ndim == 4:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs))


class ContrastMemory(Projectors):
    """Projections of both embeddings to a sphere, and what every sample of the data was last projected to.

    Parameters
    ----------
    ours, theirs
        Sizes of the embeddings.
    size
        Of the projections.
    labels
        The class of each sample of the data, int64.
    """

    labels: Tensor
    students: Tensor
    """(samples, size), rows of length 1."""
    teachers: Tensor
    scales: Tensor
    """The mean of exp(s / τ) over the first step's pairs, with the student's memory and the teacher's; 0 before it."""

    def __init__(self, ours: int, theirs: int, size: int, labels: Tensor) -> None:
        super().__init__()
        self.student = nn.Linear(ours, size)
        self.teacher = nn.Linear(theirs, size)
        for name in ("students", "teachers"):
            self.register_buffer(name, functional.normalize(torch.randn(len(labels), size), dim=1))
        self.register_buffer("scales", torch.zeros(2))
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        own, their = self.student(ours[0].flatten(1)), self.teacher(theirs[0].flatten(1))
        return [functional.normalize(own, dim=1)], [functional.normalize(their, dim=1)]

    def ratios(
        self, anchors: Tensor, number: int, places: Tensor, others: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """``exp(s / τ) / Z`` of projections (N, size) with the memory at their own `places` (N,) and at `others` (K,).

        `number` is 0 for the student's memory, 1 for the teacher's. Z, the samples times the mean, is set by the first call and kept.
        """
        memory = (self.students, self.teachers)[number]
        positive = ((anchors * memory[places]).sum(1) / temperature).exp()
        negative = (anchors @ memory[others].T / temperature).exp()
        if not bool(self.scales[number]):
            self.scales[number] = torch.cat([positive.detach(), negative.detach().flatten()]).mean()
        scale = self.scales[number] * len(memory)
        return positive / scale, negative / scale

    @torch.no_grad()
    def remember(self, ours: Tensor, theirs: Tensor, places: Tensor, momentum: float) -> None:
        """Move the memory of these samples towards their projections (N, size)."""
        for memory, new in ((self.students, ours), (self.teachers, theirs)):
            moved = momentum * memory[places] + (1 - momentum) * new.to(memory.dtype)
            memory[places] = functional.normalize(moved, dim=1)


class ReviewFusions(Projectors):
    """The student's layers fused from the deepest up, so that deeper ones imitate shallow layers of the teacher too.

    Parameters
    ----------
    ours, theirs
        Maps (N, C, H, W) for an example, from the shallowest to the deepest.
    width
        Most channels of the fused maps.

    Raises
    ------
    DomainError
        A layer is no map.
    """

    def __init__(self, ours: Sequence[Tensor], theirs: Sequence[Tensor], width: int) -> None:
        super().__init__()
        for layer in (*ours, *theirs):
            if layer.ndim != 4:
                raise DomainError(
                    f"a layer has shape {tuple(layer.shape)}, but review needs maps (N, C, H, W)",
                    hint="name convolutional layers, from the shallowest to the deepest",
                )
        width = min(width, ours[-1].shape[1])
        self.fusions = nn.ModuleList(
            _Fusion(own.shape[1], width, their.shape[1], fuses=number < len(ours) - 1)
            for number, (own, their) in enumerate(zip(ours, theirs, strict=True))
        )

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        fused: list[Tensor] = []
        deeper: Tensor | None = None
        for fusion, layer in zip(reversed(self.fusions), reversed(ours), strict=True):
            deeper, output = fusion(layer, deeper)
            fused.insert(0, output)
        return fused, theirs


class EarlyExits(Projectors):
    """A classifier on each of the student's layers but the last; it gives their scores, and their features beside the last's.

    Parameters
    ----------
    ours
        Layers (N, C, H, W) or (N, D) for an example, the last of which is what the others shall come to.
    classes
        Scores of each.
    """

    def __init__(self, ours: Sequence[Tensor], classes: int) -> None:
        super().__init__()
        size = ours[-1].shape[1]
        self.features = nn.ModuleList(
            nn.Sequential(
                _linear(
                    layer, ours[-1] if layer.ndim == ours[-1].ndim else layer[:, :1].expand(-1, size, *layer.shape[2:])
                ),
                nn.ReLU(),
            )
            for layer in ours[:-1]
        )
        self.classifiers = nn.ModuleList(nn.Linear(size, classes) for _ in ours[:-1])

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scores (N, classes) of each exit; then features (N, D) of each, the last layer's at the end."""
        features = [_pooled(part(layer)) for part, layer in zip(self.features, ours[:-1], strict=True)]
        scores = [part(layer) for part, layer in zip(self.classifiers, features, strict=True)]
        return scores, [*features, _pooled(ours[-1])]


def _pooled(layer: Tensor) -> Tensor:
    return layer.flatten(2).mean(2) if layer.ndim > 2 else layer


class KeptChannels(Projectors):
    """Of each of the teacher's layers the channels that the pruned student still has.

    Parameters
    ----------
    indices
        Of each layer, int64.
    """

    def __init__(self, indices: Sequence[Tensor]) -> None:
        super().__init__()
        for number, each in enumerate(indices):
            self.register_buffer(f"indices_{number}", each, persistent=False)

    def forward(self, ours: list[Tensor], theirs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return ours, [layer[:, self.get_buffer(f"indices_{number}")] for number, layer in enumerate(theirs)]


class _Fusion(nn.Module):
    """A layer, weighed at each place against what came from deeper, and that as the teacher's channels."""

    def __init__(self, inputs: int, width: int, outputs: int, *, fuses: bool) -> None:
        super().__init__()
        self.own = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
        self.shares = nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()) if fuses else None
        self.out = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, layer: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        mixed = self.own(layer)
        if self.shares is not None and deeper is not None:
            enlarged = functional.interpolate(deeper, mixed.shape[2:])
            shares = self.shares(torch.cat([mixed, enlarged], 1))
            mixed = mixed * shares[:, :1] + enlarged * shares[:, 1:]
        return mixed, self.out(mixed)

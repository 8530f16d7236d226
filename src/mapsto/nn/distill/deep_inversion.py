"""Images that a trained network would call typical, found from the network alone, and a student trained on them.

``x ← argmin CE(t(x), y) + r Σ_l (‖μ_l(x) − μ̂_l‖ + ‖σ²_l(x) − σ̂²_l‖) + v TV(x)`` with the running means μ̂ and variances σ̂² that its batch
norms have kept of the data they were trained on (Yin et al., "Dreaming to Distill", 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing
from mapsto.nn.network.layer_calls import watching
from mapsto.nn.train.loop import Training
from mapsto.process import Live, Rows, State

__all__ = ["DeepInversion", "SynthesisSettings", "bounds", "statistics_gap", "variation"]


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings:
    """How batches of synthetic images are made."""

    batches: int
    batch_size: int
    iterations: int
    """Steps of a batch."""
    rate: float
    """Adam's, in units of the normalised image."""
    statistics: float
    """r."""
    variation: float
    """v."""
    classes: int


@contextmanager
def statistics_gap(module: nn.Module) -> Generator[list[Tensor]]:
    """Distances of each batch norm's input from what it has kept, one scalar a layer, filled while `module` runs.

    Raises `DomainError` where there is no batch norm with running statistics.
    """
    gaps: list[Tensor] = []

    def measure(path: str, given: tuple[Any, ...], _: object) -> None:
        inputs: Tensor = given[0]
        variances, means = torch.var_mean(inputs, dim=(0, 2, 3), unbiased=False)
        kept = norms[path].get_buffer("running_mean"), norms[path].get_buffer("running_var")
        gaps.append((means - kept[0]).norm() + (variances - kept[1]).norm())

    norms = {
        path: part
        for path, part in module.named_modules()
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None
    }
    if not norms:
        raise DomainError(
            "it has no batch norms that kept statistics", hint="choose a teacher with batch norms, not folded"
        )
    with watching(norms, measure, before=True):
        yield gaps


def variation(images: Tensor) -> Tensor:
    """The mean squared difference of neighbours, below and beside, of images (N, C, H, W)."""
    return images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()


def bounds(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """What black and white are in each channel after normalisation, each of shape (C, 1, 1)."""
    mean, std = (
        torch.tensor(values, device=device).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return -mean / std, (1 - mean) / std


class DeepInversion(Live[Network]):
    """Makes images batch by batch, then trains the student on them.

    Parameters
    ----------
    settings
        How images are made.
    teacher
        In evaluation mode; its parameters want no gradients.
    shape
        Of an image, (C, H, W).
    limits
        From `bounds`.
    student
        Its training; an item is a batch of images.
    order
        Epoch → the order of the images.
    """

    def __init__(
        self,
        settings: SynthesisSettings,
        teacher: nn.Module,
        shape: tuple[int, ...],
        limits: tuple[Tensor, Tensor],
        state: State | None,
        student: Training,
        order: Callable[[int], Tensor],
    ) -> None:
        self._settings, self._teacher, self._shape, self._limits = settings, teacher, shape, limits
        self._student, self._order = student, order
        self._device = limits[0].device
        state = state or {}
        self._made: list[Tensor] = [state["images"].to(self._device)] if "images" in state else []
        self._current: dict[str, Tensor] = {
            name: tensor.to(self._device).clone() for name, tensor in state.get("current", {}).items()
        }
        self.step = int(state.get("step", 0))
        self.total = settings.batches * settings.iterations + (student.total or 0)

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the student is trained."""
        return self._student.done

    def advance(self, item: Any) -> Rows:
        settings = self._settings
        if self.step < settings.batches * settings.iterations:
            metrics = self._improve(self.step % settings.iterations)
        else:
            epoch, place = divmod(self._student.step, settings.batches)
            chosen = self._order(epoch)[place * settings.batch_size : (place + 1) * settings.batch_size]
            (_, metrics), *_ = self._student.advance(torch.cat(self._made)[chosen])
        self.step += 1
        return [(self.step, metrics)]

    def snapshot(self) -> State:
        state: State = {"step": self.step, "student": self._student.snapshot()}
        if self._made:
            state["images"] = torch.cat(self._made)
        if self._current:
            state["current"] = self._current
        return state

    def result(self) -> Network:
        return self._student.result()

    def _improve(self, number: int) -> dict[str, float]:
        """A step of Adam on the batch at work, drawn as noise first; the images are moved by up to two pixels at random."""
        settings = self._settings
        if number == 0:
            noise = torch.randn(settings.batch_size, *self._shape).to(self._device)
            self._current = {"images": noise, "mean": torch.zeros_like(noise), "square": torch.zeros_like(noise)}
        images = self._current["images"].requires_grad_()
        labels = torch.arange(settings.batch_size, device=self._device) % settings.classes
        shifts = [int(shift) for shift in torch.randint(-2, 3, (2,))]
        with statistics_gap(self._teacher) as gaps:
            scores: Tensor = self._teacher(images.roll(shifts, (2, 3)))
        loss = functional.cross_entropy(scores, labels)
        loss = loss + settings.statistics * torch.stack(gaps).sum() + settings.variation * variation(images)
        (gradient,) = torch.autograd.grad(loss, [images])
        self._current["images"] = self._moved(images.detach(), gradient, number + 1)
        if number + 1 == settings.iterations:
            self._made.append(self._current["images"])
            self._current = {}
        return {"image_loss": float(loss.detach())}

    def _moved(self, images: Tensor, gradient: Tensor, count: int) -> Tensor:
        mean = self._current["mean"].lerp_(gradient, 0.1)
        square = self._current["square"].lerp_(gradient.square(), 0.001)
        step = (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
        moved = images - self._settings.rate * step
        return torch.maximum(torch.minimum(moved, self._limits[1]), self._limits[0])

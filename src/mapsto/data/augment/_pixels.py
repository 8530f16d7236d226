"""What operations on single images share: they draw a table of steps, which native code or PyTorch follows to the same bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from mapsto.data.augment._base import Augmentation, Drawn
from mapsto.data.augment._steps import Fill, Kind, Steps, number_of, rows, uniforms
from mapsto.errors import SpecError
from mapsto.native.image_steps import ImageSteps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator, Tensor

__all__ = [
    "OneNumber",
    "PixelOperation",
    "by_native_code",
    "changed_by",
    "draw_together",
    "in_order",
    "signed",
    "without_native_code",
]

LARGEST = 16384
"""Pixels of a side up to which native code counts places in 32 bits."""
THREADED = 2**21
"""Bytes of images for which a thread of its own is worth its start."""


class PixelOperation(Augmentation):
    """An operation whose steps are drawn for each image by itself.

    Images are bytes, black 0 and white 255, of any number of channels. Other numbers are rounded to 256 steps first, from 0 to 1 (whole
    ones to 255), or from the image's darkest to its brightest value where those lie beyond.
    """

    exact: ClassVar[bool] = False
    """Whether it only moves whole pixels, so that numbers of any type are taken as they are."""

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        """The steps of images (N, C, H, W); as many numbers are drawn an image, whatever its size."""
        raise NotImplementedError(f"{type(self).__name__} does not define steps")

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        steps = self.steps(tuple(drawn.x.shape), generator)
        return dataclasses.replace(drawn, x=changed_by(steps, drawn.x, exact=self.exact))


def draw_together(operations: Sequence[tuple[PixelOperation, Generator]], drawn: Drawn) -> Drawn:
    """Operations one after the other, in one pass over each image where they are steps alone; the same as one by one."""
    import torch

    if drawn.x.dtype != torch.uint8:
        for operation, generator in operations:
            drawn = operation.draw(drawn, generator)
        return drawn
    x, shape = drawn.x, tuple(drawn.x.shape)
    waiting: list[NDArray[np.int32]] = []
    for operation, generator in operations:
        steps = operation.steps(shape, generator)
        if steps.pool is None and steps.shares is None:
            waiting.append(steps.table)
            continue
        x, waiting = changed_by(steps, _at_once(waiting, x)), []
    return dataclasses.replace(drawn, x=_at_once(waiting, x))


def _at_once(tables: Sequence[NDArray[np.int32]], x: Tensor) -> Tensor:
    return changed_by(Steps(table=np.concatenate(tables, axis=1)), x) if tables else x


class OneNumber(PixelOperation):
    """A step with one number, drawn for each image, at most."""

    kind: ClassVar[Kind]
    """What is done."""

    probability: float = Field(default=1.0, ge=0, le=1, description="Of each image to be changed, 0 to 1.")

    def values(self, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number of each image from one alike likely between 0 and 1, (N,)."""
        return uniform

    @property
    def beyond(self) -> Fill:
        """What is seen beyond the border, where pixels move."""
        return 0

    def steps(self, shape: tuple[int, ...], generator: Generator) -> Steps:
        chosen, uniform = uniforms(2, shape[0], generator)
        kinds = np.where(chosen < self.probability, number_of(self.kind), number_of("identity"))
        return Steps(table=rows(kinds, self.values(uniform), self.beyond)[:, None])


def changed_by(steps: Steps, x: Tensor, *, exact: bool = False) -> Tensor:
    """Images (N, C, H, W) after their steps: another tensor, of the same type. `exact`: numbers that are no bytes are not rounded."""
    import torch

    if x.dtype == torch.uint8 or exact:
        return _changed(steps, x)
    low, high = (each.view(-1, 1, 1, 1).double() for each in x.flatten(1).aminmax(dim=1))
    low, high = low.clamp(max=0), high.clamp(min=1 if x.is_floating_point() else 255)
    unit = (high - low) / 255
    before = ((x - low) / unit).round_().to(torch.uint8)
    after = _changed(steps, before)
    values = after.double() * unit + low
    return torch.where(after == before, x, (values if x.is_floating_point() else values.round_()).to(x.dtype))


def by_native_code(steps: Steps, x: Tensor) -> Tensor | None:
    """Images of bytes after their steps by native code, on as many threads as PyTorch has; None where there is none for these."""
    import torch

    native = ImageSteps.kept()
    if native.missing is not None or x.dtype != torch.uint8 or x.device.type != "cpu" or max(x.shape[2:]) > LARGEST:
        return None
    x = x.contiguous()
    made = torch.empty_like(x)
    share = max(-(-len(x) // torch.get_num_threads()), -(-THREADED * len(x) // max(x.numel(), 1)), 1)
    parts = [slice(start, start + share) for start in range(0, len(x), share)]

    def change(part: slice) -> bool:
        return native.follow(x[part].data_ptr(), made[part].data_ptr(), tuple(x[part].shape), steps.of(part))

    if len(parts) > 1:
        with ThreadPoolExecutor(len(parts)) as pool:
            done = all(list(pool.map(change, parts)))
    else:
        done = native.follow(x.data_ptr(), made.data_ptr(), tuple(x.shape), steps)
    if not done:
        raise MemoryError("there is no memory for the steps of an augmentation")
    return made


def without_native_code(operations: Sequence[Augmentation], say: Callable[[str], None]) -> str | None:
    """Why operations on images are done by PyTorch; None where they are not. Where native code is compiled for it, `say` is told."""
    needed = any(isinstance(each, PixelOperation) for each in operations)
    return ImageSteps.kept(say).missing if needed else None


def _changed(steps: Steps, x: Tensor) -> Tensor:
    native = by_native_code(steps, x)
    if native is not None:
        return native
    from mapsto.data.augment._by_torch import by_torch

    return by_torch(x, steps)


def signed(uniform: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """From -largest to largest, alike likely."""
    return (2 * uniform - 1) * largest


def in_order(operation: PixelOperation, field: str) -> None:
    """Raises `SpecError` where the smallest value of a field of two is above the largest."""
    low, high = getattr(operation, field)
    if low > high:
        problem = f"field '{field}': the smallest, {low}, is above the largest, {high}"
        raise SpecError(problem, where=f"augment.{operation.name}", details=(((field,), problem),))

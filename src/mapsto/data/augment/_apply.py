"""Applying a list of augmentations: to single samples as they are read, then, once they are prepared for a network, what mixes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from mapsto.data.augment._auto import Auto
from mapsto.data.augment._base import Augmentation, Drawn, SampleKind
from mapsto.data.augment._pixels import PixelOperation, draw_together
from mapsto.errors import DomainError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from mapsto.data.augment._columns import RowColumns
    from mapsto.data.augment._words import TextWords
    from mapsto.kinds import Samples

__all__ = ["changed", "generator_of", "mixed", "require_fitting", "sample_kind"]

Generators: TypeAlias = "Callable[[int], Generator]"
"""An operation's place in its list → the generator of its draws."""


def changed(
    operations: Sequence[Augmentation],
    raw: Tensor,
    generators: Generators,
    *,
    targets: Tensor | None = None,
    classes: int = 0,
    columns: RowColumns | None = None,
    words: TextWords | None = None,
) -> Tensor:
    """Raw samples (N, ...) after each operation that keeps their targets; the same tensor where there is none.

    Parameters
    ----------
    operations, raw, generators
        What is done, to what, and by which draws.
    targets, classes
        Class numbers (N,) and how many there are, for what takes values from other samples of a class.
    columns
        What is known of the numbers of rows.
    words
        The tokenizer of texts.

    Raises
    ------
    DomainError
        An operation goes by class, and there are no class numbers.
    """
    alone = [(place, each) for place, each in enumerate(operations) if not each.mixes]
    if not alone:
        return raw
    numbered = targets is not None and targets.ndim == 1 and not targets.is_floating_point()
    for _, operation in alone:
        if operation.by_class and not numbered:
            raise DomainError(
                f"{operation.name} takes values from other samples of the same class, but there are no classes",
                where=f"augment: {operation.name}",
                hint="leave it out",
            )
    known = targets if targets is not None and numbered else raw.new_empty(len(raw), 0)
    drawn = Drawn(x=raw, targets=known, classes=classes if numbered else 0, columns=columns, words=words)
    for together, group in groupby(alone, lambda pair: isinstance(pair[1], PixelOperation)):
        if together:
            pixels = [
                (operation, generators(place)) for place, operation in group if isinstance(operation, PixelOperation)
            ]
            drawn = draw_together(pixels, drawn)
        else:
            for place, operation in group:
                drawn = operation.draw(drawn, generators(place))
    return drawn.x


def mixed(operations: Sequence[Augmentation], drawn: Drawn, generators: Generators) -> Drawn:
    """A prepared batch after each operation that mixes its samples."""
    for place, operation in enumerate(operations):
        if operation.mixes:
            drawn = operation.draw(drawn, generators(place))
    return drawn


def generator_of(seed: int) -> Generator:
    """A generator of its own, on the CPU: draws are the same whatever device the samples are on."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(seed)
    return generator


def require_fitting(
    operations: Sequence[Augmentation] | Auto | Literal["auto"],
    samples: Samples,
    *,
    where: str,
    targets: Literal["classification", "multilabel", "regression"] = "classification",
) -> None:
    """Raises `DomainError` where an operation is for other samples than these, or mixes what cannot be mixed; ``auto`` chooses later."""
    if isinstance(operations, Auto | str):
        return
    kind = sample_kind(samples.inputs)
    for operation in operations:
        if kind not in operation.on:
            raise DomainError(
                f"{operation.name} is for {' and '.join(operation.on)}, but the samples are {kind}: {samples.inputs.dtype} "
                f"of shape {samples.inputs.shape[1:]}",
                where=where,
                hint="leave it out",
            )
        if operation.by_class and targets != "classification":
            what = "numbers to predict" if targets == "regression" else "labels of which several may be right"
            raise DomainError(
                f"{operation.name} takes values from other samples of the same class, but the targets are {what}",
                where=where,
                hint="leave it out, or use noise or feature_dropout, which need no classes",
            )
        if operation.mixes and targets == "regression" and not operation.mixes_values:
            raise DomainError(
                f"{operation.name} mixes labels, but the targets are numbers to predict",
                where=where,
                hint="leave it out, or use mixup, which blends numbers too",
            )


def sample_kind(inputs: NDArray[Any]) -> SampleKind:
    """What raw samples are, by their shape and type."""
    if inputs.ndim == 4:
        return "images"
    return "texts" if inputs.dtype.kind in "iu" and inputs.dtype != np.uint8 else "rows"

"""What an augmentation is: a frozen value that draws a random change of each sample of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from mapsto import discovery
from mapsto.kinds import Frozen

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from mapsto.context import Context
    from mapsto.data.augment._columns import RowColumns
    from mapsto.data.augment._words import TextWords

__all__ = ["Augmentation", "Drawn", "SampleKind"]

SampleKind: TypeAlias = Literal["images", "rows", "texts"]
"""Images (N, C, H, W), rows of numbers (N, ...), or token ids (N, L), of pairs (N, 2, L)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A batch on its way through a list of augmentations."""

    x: Tensor
    """Shape (N, ...). Before samples are prepared: as they are read, images as bytes 0 (black) to 255 (white). What mixes sees them
    prepared for a network, as normalised floats."""
    targets: Tensor
    """Class numbers (N,), int64, until something mixes them, then shares of classes (N, classes); or labels and values (N, K), float32.
    (N, 0) where there are none."""
    weights: Tensor | None = None
    """How much each sample counts in the loss, (N,); None: all alike."""
    classes: int = 0
    """How many classes `targets` are numbers or shares of; 0 where they are none."""
    columns: RowColumns | None = None
    """Of rows: which numbers belong together, which are categories, and how the training rows spread; None where nobody looked."""
    words: TextWords | None = None
    """Of texts: the tokenizer that read them; None where none came with them."""


class Augmentation(Frozen):
    """One operation of a list: what it may do are its fields, what it does is drawn anew for each sample.

    A file in ``mapsto/data/augment/``, or in another package by an entry point in the group ``mapsto.augment``.
    """

    version: ClassVar[int] = 1
    """Raised whenever the same fields would give another change; it enters every key."""
    mixes: ClassVar[bool] = False
    """Whether it mixes samples and their targets; else it changes each sample by itself, and leaves targets as they are."""
    mixes_values: ClassVar[bool] = False
    """Of what mixes: whether it makes sense where targets are numbers to predict, not classes or labels."""
    by_class: ClassVar[bool] = False
    """Whether it takes values from other samples of the same class, so that it must be given the batch's classes. Targets stay."""
    on: ClassVar[tuple[SampleKind, ...]] = ("images",)
    """What samples it takes."""
    contract: ClassVar[dict[str, Any]] = {}
    """Fields with which the contract tests try it, where its defaults change nothing."""
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Settings of its fields that ``augment: auto`` tries on single samples, from mild to strong; empty: it is never chosen by itself."""

    @property
    def name(self) -> str:
        """The name in a list of augmentations, such as ``flip``."""
        return discovery.name_of(type(self)).removeprefix("augment.")

    def bound(self, ctx: Context) -> Augmentation:
        """With what its references stand for; itself where it has none."""
        return self

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        """The changed batch, of the same shape and type; never changes `drawn`.

        Every random number comes from `generator`, which is on the CPU. What moves or mixes pixels draws so many a sample, whatever its
        size: then two networks that take images of different sizes see the same change.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define draw")

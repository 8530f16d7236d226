"""Heads on a frozen embedding with augmentation: they are fitted to the embeddings of the examples and of changed copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapsto.data.augment import AugmentationsOrAuto, refuse_mixing
from mapsto.errors import DomainError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Network
    from mapsto.nn.adapt.examples import Examples

__all__ = ["embedded", "refuse_mixed_embeddings"]


def refuse_mixed_embeddings(augment: AugmentationsOrAuto, *, where: str) -> None:
    """Raises `SpecError` where a listed operation mixes samples."""
    if isinstance(augment, tuple):
        refuse_mixing(augment, "the head is fitted to embeddings of single samples", where=where)


def embedded(
    augment: AugmentationsOrAuto, value: Network, examples: Examples, ctx: Context, *, where: str
) -> NDArray[np.float32] | None:
    """Embeddings of copies of the examples, (M, N, D), by the listed operations or by those that the examples choose; None for none.

    Raises `DomainError` where the operations are for other samples, or the targets are no classes.
    """
    from mapsto.data.augment._apply import require_fitting
    from mapsto.nn.adapt.augment_policy import COPIES, MOST_COPIES, copies_of, operations_for, warn_where_destroyed
    from mapsto.nn.adapt.features import features
    from mapsto.nn.train.augmenter import Augmenter

    if augment == ():
        return None
    samples = examples.samples
    if examples.kind != "classification":
        raise DomainError(
            "augmentation of a head's examples goes with one class a sample, and the targets are others",
            where=f"{where}: augment",
            hint="leave augment out, or fine-tune with it by train.supervised",
        )
    require_fitting(augment, samples, where=f"{where}: augment")
    operations = operations_for(augment, value, samples, ctx, where=f"{where}: augment")
    if not operations:
        return None
    Augmenter(operations, ctx, samples)  # shows what they make of the examples
    count = max(1, min(COPIES, MOST_COPIES // len(samples)))
    raw = copies_of(samples, operations, count, lambda number: ctx.seed_for("augment", "copies", number) >> 8)
    found = features(value, raw.reshape(-1, *raw.shape[2:]), ctx)
    copies = found.reshape(count, len(samples), -1)
    if isinstance(augment, tuple):
        warn_where_destroyed(operations, examples.features, samples.labels, examples.outputs, copies, ctx)
    return copies

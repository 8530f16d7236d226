"""Classes of unequal size in training: weights that make up for it, and a note where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from torch import Tensor

    from mapsto.context import Context
    from mapsto.kinds import Samples

__all__ = ["UNEQUAL", "note_unequal", "weights_of"]

UNEQUAL: Final = 10
"""Examples of the largest class for each of the smallest, from which on a note is given."""


def weights_of(samples: Samples, scheme: Literal["none", "balanced"], ctx: Context) -> Tensor | None:
    """One weight a class on the context's device, shape (C,); None, and a note where classes are very unequal, without any."""
    import torch

    from mapsto.nn.train.losses import class_weights

    if scheme == "none":
        note_unequal(samples, ctx)
        return None
    return class_weights(torch.as_tensor(samples.labels), len(samples.classes)).to(ctx.device)


def note_unequal(samples: Samples, ctx: Context) -> None:
    """Note that the smallest class weighs little, where another has `UNEQUAL` times as many examples."""
    import numpy as np

    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    there = np.flatnonzero(counts)
    least, most = there[counts[there].argmin()], there[counts[there].argmax()]
    if counts[most] >= UNEQUAL * counts[least]:
        how = ctx.advice.get("class_weights", "set class_weights: balanced")
        ctx.note(
            f"'{short(samples.classes[most])}' has {counts[most]} examples, '{short(samples.classes[least])}' {counts[least]}, so the "
            f"latter hardly counts; {how} to have all classes count alike"
        )

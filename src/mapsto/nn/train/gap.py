"""How much better a network is on the examples that it was trained on than on others: the gap that over-fitting leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from mapsto.kinds import Preprocessing, Samples
    from mapsto.nn.train.label_kinds import Kind

__all__ = ["MOST", "gap", "gap_of_scores", "on_examples"]

MOST: Final = 1000
"""Training examples that are looked at, evenly over all of them: that is enough for half a point, and less work than an epoch."""


def on_examples(
    samples: Samples, preprocessing: Preprocessing, *, kind: Kind = "classification", device: torch.device | str = "cpu"
) -> Callable[[nn.Module], dict[str, float]]:
    """A module → loss, and accuracy (%) or error, on at most `MOST` of the samples that it is trained on, as they are."""

    def figures(module: nn.Module) -> dict[str, float]:
        import numpy as np
        import torch

        from mapsto.nn.network.inference import forward
        from mapsto.nn.train.metrics import target_metrics

        chosen = samples.take(np.linspace(0, len(samples) - 1, min(MOST, len(samples))).astype(np.int64))
        outputs = forward(module, chosen.inputs, preprocessing, device=device)
        return target_metrics(kind, outputs, torch.as_tensor(chosen.labels)) | {"examples": float(len(chosen))}

    return figures


def gap(
    training: Mapping[str, float], held_out: Mapping[str, float], start: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Figures of training examples and of held-out ones side by side, as a step's account has them; `start`: those before training.

    >>> gap({"val_accuracy": 99.0, "examples": 50.0}, {"val_accuracy": 61.5, "epoch_train_loss": 0.1})
    {'training': {'accuracy': 99.0, 'examples': 50.0}, 'held_out': {'accuracy': 61.5}}
    """
    parts = {"training": training, "held_out": held_out, "start": start or {}}
    return {name: _named(figures) for name, figures in parts.items() if _named(figures)}


def gap_of_scores(
    fitted: NDArray[np.float64], left_out: NDArray[np.float64], labels: NDArray[Any], *, by: str
) -> dict[str, Any]:
    """The same of a head: scores (N, K) by the fit to all examples, and of each by one without it, against classes (N,).

    What is alone in its class is not judged. `by` says how examples were left out.

    >>> import numpy as np
    >>> found = gap_of_scores(np.eye(3)[[0, 0, 1, 1, 2]], np.eye(3)[[0, 1, 1, 1, 0]], np.array([0, 0, 1, 1, 2]), by="folds")
    >>> found["training"]["accuracy"], found["held_out"]["accuracy"], found["held_out_by"]
    (100.0, 75.0, 'folds (4 examples)')
    """
    import numpy as np

    judged = np.bincount(labels)[labels] > 1
    right = [100 * float((scores.argmax(1) == labels)[judged].mean()) for scores in (fitted, left_out)]
    told = gap({"val_accuracy": right[0], "examples": float(judged.sum())}, {"val_accuracy": right[1]})
    return told | {"held_out_by": f"{by} ({int(judged.sum())} examples)"}


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """What validation gave, without the losses of training."""
    if not any(name.startswith("val_") for name in figures):
        return {}
    return {
        name.removeprefix("val_"): value
        for name, value in figures.items()
        if name != "epoch_train_loss" and math.isfinite(value)
    }

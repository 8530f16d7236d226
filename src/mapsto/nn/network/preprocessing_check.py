"""Whether a foreign network does on the data what it was trained for: a small sample shows where its preprocessing is wrong.

Weights come without the mean and the standard deviation of their training, and with others a network loses half of its accuracy and says
nothing. So the usual ones are tried too: better by more than two standard errors of the paired difference is no accident.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.kinds import Network, Preprocessing, Samples
from mapsto.nn.network.inference import forward

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["Readings", "doubt", "readings"]

_SAMPLES = 200
_POOR = 0.5
"""Share right below which a trained network of three classes or more is doubted."""
_USUAL = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "pixels from 0 to 1": ((0.0,), (1.0,)),
    "pixels from -1 to 1": ((0.5,), (0.5,)),
}


def doubt(network: Network, samples: Samples, generator: np.random.Generator) -> str | None:
    """What is wrong with a classifier on labelled data, as far as at most 200 samples tell; None where nothing seems to be."""
    classes = network.signature.classes
    if classes is None or samples.labels.ndim != 1 or network.signature.outputs[0].shape[1:] != (len(samples.classes),):
        return None
    few = samples.take(generator.permutation(len(samples))[:_SAMPLES])
    own = network.signature.preprocessing
    module = network.module()
    right = _right(module, few, own)
    share, trivial = float(right.mean()), float(np.bincount(samples.labels).max() / len(samples))
    what = f"it gets {100 * share:.3g} % of {len(few)} samples of the data right"
    for name, (mean, std) in _USUAL.items() if own.kind == "image" else ():
        other = dataclasses.replace(own, mean=_each(mean, own.channels), std=_each(std, own.channels))
        better = _right(module, few, other)
        if better.sum() - right.sum() > 2 * math.sqrt((better != right).sum()):
            means, stds = (",".join(f"{number:g}" for number in numbers) for numbers in (other.mean, other.std))
            return (
                f"{what}, and {100 * float(better.mean()):.3g} % with mean {means} and std {stds} ({name}): give mean and std as in "
                "the weights' own training"
            )
    if share <= trivial + 2 * math.sqrt(trivial * (1 - trivial) / len(few)):
        return (
            f"{what}, hardly more than by always saying '{_most(samples)}' ({100 * trivial:.3g} %): check the factory's arguments, "
            "mean and std, the input and the order of the classes"
        )
    if share < _POOR and len(classes) > 2:
        return f"{what}, less than half: check mean and std, the input, and whether these are the classes it was trained on"
    return None


@dataclasses.dataclass(frozen=True)
class Readings:
    """How often a classifier is right on the same rows, scaled and as they are."""

    scaled: float
    """In percent."""
    plain: float
    rows: int
    error: float
    """The standard error of the difference, percent."""


def readings(network: Network, scaled: Samples, plain: Samples, generator: np.random.Generator) -> Readings | None:
    """A classifier on at most 200 rows of a table, read in both ways; None where it classifies no such rows."""
    shape = (len(scaled.classes),)
    if network.signature.classes is None or network.signature.outputs[0].shape[1:] != shape or scaled.labels.ndim != 1:
        return None
    chosen = generator.permutation(len(scaled))[:_SAMPLES]
    module, own = network.module(), network.signature.preprocessing
    one, other = (_right(module, rows.take(chosen), own) for rows in (scaled, plain))
    error = 100 * math.sqrt((one != other).sum()) / len(chosen)
    return Readings(100 * float(one.mean()), 100 * float(other.mean()), len(chosen), error)


def _right(module: nn.Module, samples: Samples, preprocessing: Preprocessing) -> NDArray[np.bool_]:
    outputs: NDArray[Any] = forward(module, samples.inputs, preprocessing).numpy()
    return outputs.argmax(1) == samples.labels


def _each(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """A number for each channel."""
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels


def _most(samples: Samples) -> str:
    return samples.classes[int(np.bincount(samples.labels).argmax())]

"""Which network to start from: those at hand are ranked by a few labelled examples, and each is said why.

A network's embedding is judged by the ridge regression on its root: the log-loss of examples that are left out in turn, which needs no
second fit. Beside it stands LogME, the evidence of a Bayesian linear model from the embedding to the labels, as an average over classes
and examples (You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", 2021). With one example of each
class nothing can be left out, and LogME decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import MapstoError
from mapsto.kinds import Network, Samples

if TYPE_CHECKING:
    from mapsto.context import Context

__all__ = ["Ranked", "log_me", "ranked"]

_STEPS, _TOLERANCE = 50, 1e-4


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A network at hand, and how it was judged."""

    name: str
    network: Network
    log_loss: float
    """Of left-out examples by a ridge regression on its embedding, in nats; NaN where none can be left out."""
    log_loss_error: float
    """One standard error of it."""
    accuracy: float
    """The share of left-out examples that are answered right, 0 to 1."""
    log_me: float
    """Larger is better; comparable between networks on the same examples."""
    features: int
    """D."""
    parameters: int
    why: str
    """What decided, in words."""


def ranked(candidates: Mapping[str, Network], samples: Samples, ctx: Context) -> list[Ranked]:
    """The networks from the best to the worst; one that cannot take the examples is last.

    Parameters
    ----------
    candidates
        By the names that the user knows them by.
    samples
        Labelled examples, one class each, raw: each network's own preprocessing makes its input of them.
    ctx
        Its device and threads embed them; `features` keeps the embeddings.
    """
    found = [_judged(name, network, samples, ctx) for name, network in candidates.items()]
    found.sort(key=lambda each: (each.log_loss if not math.isnan(each.log_loss) else math.inf, -each.log_me))
    return found


def log_me(features: NDArray[Any], labels: NDArray[np.int64], classes: int) -> float:
    """The mean log-evidence of one example and one class, from features (N, D) and class numbers (N,).

    The precisions of the weights and of the noise are found for each class by fixed-point iteration, on the singular values.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> good = np.eye(3)[labels] + 0.1 * rng.normal(size=(60, 3))
    >>> log_me(good, labels, 3) > log_me(rng.normal(size=(60, 3)), labels, 3)
    True
    """
    rows = np.asarray(features, np.float64)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    there = values > values.max(initial=0.0) * 1e-10
    left, values = left[:, there], values[there]
    count, size = rows.shape
    squares = np.square(values)
    evidence = 0.0
    for label in range(classes):
        target = (labels == label).astype(np.float64)
        coordinates = left.T @ target
        beyond = float(max(target @ target - coordinates @ coordinates, 0.0))
        weights, noise = 1.0, 1.0  # precisions: alpha and beta of the paper
        length = error = 1.0
        for _ in range(_STEPS):
            shrunk = weights + noise * squares
            used = float((noise * squares / shrunk).sum())
            mean = noise * values * coordinates / shrunk
            length = max(float(mean @ mean), 1e-12)
            error = max(float(np.square(coordinates * weights / shrunk).sum()) + beyond, 1e-12)
            before = weights / noise
            weights, noise = max(used, 1e-6) / length, max(count - used, 1e-6) / error
            if abs(weights / noise - before) <= _TOLERANCE * before:
                break
        shrunk = weights + noise * squares
        determinant = float(np.log(shrunk).sum()) + (size - len(values)) * math.log(weights)
        evidence += (
            size / 2 * math.log(weights)
            + count / 2 * math.log(noise)
            - determinant / 2
            - noise / 2 * error
            - weights / 2 * length
            - count / 2 * math.log(2 * math.pi)
        ) / count
    return evidence / classes


def _judged(name: str, network: Network, samples: Samples, ctx: Context) -> Ranked:
    from mapsto.nn.adapt import ridge
    from mapsto.nn.adapt.features import features

    none = float("nan")
    parameters = sum(tensor.numel() for tensor in network.tensors.values() if tensor.is_floating_point())
    try:
        rows = features(network, samples.inputs, ctx)
    except MapstoError as error:
        return Ranked(
            name=name,
            network=network,
            log_loss=none,
            log_loss_error=none,
            accuracy=none,
            log_me=-math.inf,
            features=0,
            parameters=parameters,
            why=f"it cannot take these examples: {error.what}",
        )
    labels, classes = samples.labels, len(samples.classes)
    found = ridge.fitted(ridge.rooted(rows), labels, classes, normalise=True)
    evidence = log_me(rows, labels, classes)
    judged = np.bincount(labels)[labels] > 1
    loss = error = right = none
    why = f"LogME {evidence:.3f}; with one example of each class nothing can be left out"
    if judged.any():
        right = float((found.left_out[judged].argmax(1) == labels[judged]).mean())
        loss = float(found.losses.mean())
        error = float(found.losses.std()) / max(len(found.losses), 1) ** 0.5
        why = f"log-loss {loss:.3f} ± {error:.3f} and {100 * right:.0f} % right on left-out examples; LogME {evidence:.3f}"
    return Ranked(
        name=name,
        network=network,
        log_loss=loss,
        log_loss_error=error,
        accuracy=right,
        log_me=evidence,
        features=rows.shape[1],
        parameters=parameters,
        why=why,
    )

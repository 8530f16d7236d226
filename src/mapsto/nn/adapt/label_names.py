"""The names of classes as texts that a head learns from: with few labels a name is worth more than another example.

``card_arrival`` says what the class is about, and an encoder of sentences puts it near the texts of that class (Chang et al., "Importance
of Semantic Representation: Dataless Classification", 2008; Luo et al., "Don't Miss the Labels: Label-Semantic Augmented Meta-Learner for
Few-Shot Text Classification", 2021). Names that say nothing do harm, so that the labelled examples decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.nn.adapt import multinomial
from mapsto.nn.adapt.cross_validation import folds_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.kinds import Network
    from mapsto.nn.adapt.examples import Examples

__all__ = ["NamedClasses", "named_classes", "readable", "used_names", "why_not", "with_names"]

_FOLDS = 5
_CLEARLY = 2.0
"""With one example a class names are used where they alone are right more often than chance by so many standard deviations."""
_MANY = 2000
"""So many examples are enough to judge names by."""


class NamedClasses(NamedTuple):
    """The embedded names of classes."""

    features: NDArray[np.float32]
    """(M, D); M is at most K."""
    labels: NDArray[np.int64]
    """Which class each is, (M,)."""
    texts: tuple[str, ...]
    """As they were read, (M,)."""
    ids: NDArray[np.int64]
    """Their token ids, (M, L)."""


def readable(name: str) -> str | None:
    """A class's name as a text; None where it has no letter.

    >>> readable("card_arrival"), readable("getSpareCard"), readable("PIN-blocked"), readable("17"), readable("HTTPError")
    ('card arrival', 'get Spare Card', 'PIN blocked', None, 'HTTP Error')
    """
    parted = re.sub(r"[\W_]+", " ", name)
    parted = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", parted)
    parted = " ".join(parted.split())
    return parted if any(letter.isalpha() for letter in parted) else None


def named_classes(value: Network, classes: Sequence[str], ctx: Context) -> NamedClasses | None:
    """The names as the network embeds them; None where it does not read single texts, or no name has a letter."""
    from mapsto.nn.adapt.features import features
    from mapsto_runtime.preprocessing.texts import encoded

    before = value.signature.preprocessing
    if before.kind != "text" or before.texts != 1:
        return None
    texts = [readable(name) for name in classes]
    labels = np.array([number for number, text in enumerate(texts) if text is not None], np.int64)
    there = tuple(text for text in texts if text is not None)
    if not there:
        return None
    ids = encoded(there, before, "the names of classes").ids
    return NamedClasses(np.asarray(features(value, ids, ctx)), labels, there, ids)


def used_names(value: Network, examples: Examples, ctx: Context, *, judged: bool) -> NamedClasses | None:
    """The names that a head for these examples learns from, which is noted; with `judged` None where they do harm, with the reason."""
    names = named_classes(value, examples.samples.classes, ctx)
    if names is None:
        return None
    why = (
        why_not(names, examples.features, examples.labels, examples.outputs, ctx.random("label names"))
        if judged
        else ""
    )
    if why:
        ctx.note(f"the names of the classes are left out: {why}")
        return None
    shown = few([f"'{short(text)}'" for text in names.texts], 3)
    ctx.note(f"the name of each class is one more example: {shown}; to leave it out: label_names: leave_out")
    return names


def with_names(
    examples: Examples, names: NamedClasses | None
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.float64] | None]:
    """Features, labels and weights of the examples, then of the names, which weigh 1."""
    if names is None:
        return examples.features, examples.labels, examples.weights
    weights = None if examples.weights is None else np.append(examples.weights, np.ones(len(names.labels)))
    features = np.concatenate([examples.features, names.features])
    return features, np.append(examples.labels, names.labels), weights


def why_not(
    names: NamedClasses, features: NDArray[Any], labels: NDArray[np.int64], classes: int, rng: np.random.Generator
) -> str:
    """Why the names are better left out, in words; empty where they are used.

    Where examples can be held out, they are left out if a head without them is right more often by more than one standard error of the
    difference. Where each class has one example, what the names alone say of the examples has to be better than chance.
    """
    if len(labels) > _MANY:
        drawn = rng.permutation(len(labels))[:_MANY]
        features, labels = features[drawn], labels[drawn]
    most = int(np.bincount(labels).max())
    fold = folds_of(labels, max(2, min(_FOLDS, most)), rng)
    if not (fold >= 0).any():
        return _no_better_than_chance(names, features, labels, classes)
    gains: list[NDArray[np.float64]] = []
    for number in range(int(fold.max()) + 1):
        held, known = fold == number, np.flatnonzero(fold != number)
        rows, own = features[known], labels[known]
        without = multinomial.fit(rows, own, classes)
        both = np.concatenate([rows, names.features]), np.concatenate([own, names.labels])
        with_names = multinomial.fit(*both, classes)
        right = [
            (features[held] @ head.weight.T + head.bias).argmax(1) == labels[held] for head in (without, with_names)
        ]
        gains.append(right[1].astype(np.float64) - right[0])
    gain = np.concatenate(gains)
    error = float(gain.std()) / len(gain) ** 0.5
    if float(gain.mean()) >= -error:
        return ""
    return f"with them {-100 * gain.mean():.1f} ± {100 * error:.1f} points fewer of the held-out examples are right"


def _no_better_than_chance(names: NamedClasses, features: NDArray[Any], labels: NDArray[np.int64], classes: int) -> str:
    centre = features.mean(0)
    judged = np.isin(labels, names.labels)
    if not judged.any():
        return "no class with a name has an example"
    likeness = _units(features[judged] - centre) @ _units(names.features - names.features.mean(0)).T
    right, count, chance = names.labels[likeness.argmax(1)] == labels[judged], int(judged.sum()), 1 / len(names.labels)
    needed = chance + _CLEARLY * (chance * (1 - chance) / count) ** 0.5
    if float(right.mean()) >= needed:
        return ""
    return f"alone they are right on {int(right.sum())} of {count} examples, hardly more than by chance"


def _units(rows: NDArray[Any]) -> NDArray[Any]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

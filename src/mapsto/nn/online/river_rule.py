"""A classifier of river as a rule: rows become its dictionaries, and its whole state is bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mapsto.nn.online.loop import Online
from mapsto.nn.online.river_codec import decoded, encoded, river
from mapsto.nn.online.rule import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OfRiver", "RiverRule"]


class OfRiver(Online):
    """The fields of every learner of river. Rows hold raw numbers: trees ask for no scale, and one that moves would move their splits."""

    scaled: ClassVar[bool] = False


class RiverRule(Rule):
    """A classifier whose features are numbered as the row's inputs and whose labels as the classes, so that no order hangs on names.

    Parameters
    ----------
    make
        Makes the classifier, given river.

    Raises
    ------
    MissingExtra
        river is not installed.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._model = make(river())
        self._classes, self._labels = 0, 0

    def grow(self, inputs: int, classes: int) -> None:
        self._classes = classes

    def scores(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.zeros(self._classes)
        if self._labels:  # before, the question alone would fix which features there are
            for label, score in self._model.predict_proba_one(_features(row)).items():
                scores[label] = score
        total = float(np.add.reduce(scores))
        if not total > 0:
            scores[:] = 1.0
            total = float(self._classes)
        scores /= total or 1.0
        return scores

    def learn(self, row: NDArray[np.float64], label: int) -> None:
        self._model.learn_one(_features(row), label)
        self._labels += 1

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "river": np.frombuffer(encoded(self._model), np.uint8).copy(),
            "numbers": np.array([self._classes, self._labels]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        model = decoded(arrays["river"].tobytes())
        if type(model) is not type(self._model):
            raise ValueError(f"a {type(model).__name__} in place of a {type(self._model).__name__}")
        self._model = model
        self._classes, self._labels = arrays["numbers"].tolist()


def _features(row: NDArray[np.float64]) -> dict[int, float]:
    """A row without the bias, which is no feature."""
    return dict(enumerate(row.tolist()[1:]))

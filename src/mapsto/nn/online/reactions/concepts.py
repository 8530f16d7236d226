"""Concepts that come back: the learner of each is kept as it was before the stream left it, and recalled where it answers better again.

Every kept learner is asked beside the one that answers. Its gain is Page's cumulative sum of log-likelihood ratios,
``g ← max(0, g + log p_kept(y) - log p_answering(y))`` (Page, "Continuous Inspection Schemes", 1954), each term cut off at 2; at 6 it is
recalled, and where a detector has marked a drift besides, at 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from mapsto.nn.online.kept_events import KeptEvents, block_of
from mapsto.nn.online.members import under

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.kinds import Task
    from mapsto.nn.online.learning import StreamLearner

__all__ = ["SNAPSHOT", "Concepts", "Stored"]

SNAPSHOT = 256
"""Events after which the learner is set down, so that there is one of before a drift."""
_SNAPSHOTS = 3
_BEFORE = 64
"""Events before a change is seen in which the learner may have met the other concept already."""
_MOST_GAIN = 2.0
_RECALLED_AT, _RECALLED_AT_A_DRIFT = 6.0, 4.0
_MOST_JUDGED = 64
_MOST_HISTORY = 1000

Loss = Callable[["NDArray[np.float64]", Sequence[str], Any], float]
"""Scores, the names of their classes and a label → −log of the likelihood."""


class Stored(NamedTuple):
    """A learner at an event, set down."""

    event: int
    arrays: dict[str, NDArray[Any]]
    values: dict[str, Any]
    """With what of a learner it is under ``node``."""


class _Concept:
    def __init__(self, stored: Stored, learner: StreamLearner, gain: float = 0.0) -> None:
        self.stored, self.learner, self.gain = stored, learner, gain


class Concepts:
    """The concepts that were met, and which is the present one.

    Parameters
    ----------
    most
        Concepts whose learners are kept; of more the one that was left longest ago goes.
    restored
        Makes a learner of one that was set down.
    """

    def __init__(self, most: int, restored: Callable[[Stored], StreamLearner]) -> None:
        self._most, self._restored = most, restored
        self._snapshots: list[Stored] = []
        self._kept: dict[int, _Concept] = {}
        """By their numbers, the one that was left last at the end."""
        self.present, self._named = 1, 1
        """The number of the concept at present, and the largest one so far."""
        self.history: list[list[int]] = [[0, 1]]
        """From which event on which concept was learnt, the last ones."""
        self._judged = KeptEvents(_MOST_JUDGED)
        """Events since the last decision, each with its label and the loss of the answer."""

    def set_down(self, stored: Stored) -> None:
        """The learner at present, every `SNAPSHOT` events."""
        self._snapshots = [*self._snapshots[1 - _SNAPSHOTS :], stored]

    def judge(self, x: Mapping[str, Any], label: Any, loss: float) -> None:
        """An event with its label, and the loss of the answer."""
        if self._kept:
            self._judged.add(x, [label, loss])

    def back(self, task: Task, loss: Loss, *, drifted: bool) -> int | None:
        """The concept that has come back, by the events since this was last asked; None where none has."""
        judged = self._judged.last(_MOST_JUDGED)
        self._judged = KeptEvents(_MOST_JUDGED)
        others = {number: each for number, each in self._kept.items() if number != self.present}
        if not judged or not others:
            return None
        told = [cast("list[Any]", value) for _, value in judged]
        block = block_of([x for x, _ in judged], [label for label, _ in told], task)
        for concept in others.values():
            scores, names = concept.learner.predict(block), concept.learner.signature.classes
            for row, (label, own) in zip(scores, told, strict=True):
                gain = max(-_MOST_GAIN, min(_MOST_GAIN, own - loss(row, names, label)))
                concept.gain = max(0.0, concept.gain + gain)
        best = max(others, key=lambda number: others[number].gain)
        return best if others[best].gain >= (_RECALLED_AT_A_DRIFT if drifted else _RECALLED_AT) else None

    def recall(self, number: int, event: int) -> Stored:
        """Leave the present concept for an earlier one, whose learner is given."""
        found = self._kept[number].stored
        self._put_away(event)
        self._go_to(number, event)
        return found

    def leave(self, event: int) -> int | None:
        """Leave the present concept for a new one, whose number is given; None where nothing was set down of the present one."""
        if not self._put_away(event):
            return None
        self._named += 1
        self._go_to(self._named, event)
        return self._named

    def _go_to(self, number: int, event: int) -> None:
        self.present = number
        self.history = [*self.history[1 - _MOST_HISTORY :], [event, number]]
        self._snapshots = []
        for concept in self._kept.values():
            concept.gain = 0.0

    def _put_away(self, event: int) -> bool:
        """Keep the learner of the present concept as it was before an event; False where none is kept."""
        found = next((each for each in reversed(self._snapshots) if each.event <= event - _BEFORE), None)
        if found is not None:
            self._kept.pop(self.present, None)
            self._kept[self.present] = _Concept(found, self._restored(found))
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return self.present in self._kept

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, besides `values`."""
        stored = [*self._snapshots, *(each.stored for each in self._kept.values())]
        return {
            **{f"{at}.{name}": array.copy() for at, each in enumerate(stored) for name, array in each.arrays.items()},
            **{f"judged.{name}": array for name, array in self._judged.arrays().items()},
        }

    def values(self) -> dict[str, Any]:
        """What of the state is no array."""
        return {
            "snapshots": [[each.event, each.values] for each in self._snapshots],
            "kept": [[number, each.stored.event, each.stored.values, each.gain] for number, each in self._kept.items()],
            "judged": self._judged.values(),
            "numbers": [self.present, self._named],
            "history": [list(each) for each in self.history],
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Go on from another's state. Raises `ValueError` or `LookupError` where it does not fit together."""
        snapshots, kept = list(values["snapshots"]), list(values["kept"])
        stored = [
            Stored(int(event), under(f"{at}.", arrays), dict(held))
            for at, (event, held) in enumerate([*snapshots, *(each[1:3] for each in kept)])
        ]
        self._snapshots = stored[: len(snapshots)]
        self._kept = {
            int(number): _Concept(each, self._restored(each), float(gain))
            for (number, _, _, gain), each in zip(kept, stored[len(snapshots) :], strict=True)
        }
        self._judged.restore(under("judged.", arrays), values["judged"])
        self.present, self._named = (int(each) for each in values["numbers"])
        self.history = [[int(event), int(number)] for event, number in values["history"]]

"""Users or items by name, each with a slot in flat arrays; where there are too many users, the one that was idle longest makes room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Known", "grown", "name_of"]


class Known:
    """Names and their slots.

    >>> users = Known(2)
    >>> [users.meet(name) for name in ("ann", "bob", "ann", "eve")]
    [0, 1, 0, 1]
    >>> users.find("bob"), users.names, users.given_up
    (-1, ['ann', 'eve'], 1)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._slots: dict[str, int] = {}
        """By name, the one that was idle longest first."""
        self.names: list[str] = []
        """By slot."""
        self.born: list[int] = []
        """By slot, which of all that ever came has it, counted from 0."""
        self.entered = 0
        """How many ever came; one that comes back after it was given up counts again."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_full(self) -> bool:
        """Whether another one takes a slot that is in use."""
        return len(self.names) >= self._most

    @property
    def given_up(self) -> int:
        """How many made room for others."""
        return self.entered - len(self.names)

    def find(self, name: str | None) -> int:
        """The slot; -1 of one that is not known, or missing."""
        return -1 if name is None else self._slots.get(name, -1)

    def meet(self, name: str) -> int:
        """The slot of one that is there now. It is a new one's where `entered` has grown."""
        slot = self._slots.pop(name, None)
        if slot is None:
            if self.is_full:
                slot = self._slots.pop(next(iter(self._slots)))
                self.names[slot], self.born[slot] = name, self.entered
            else:
                slot = len(self.names)
                self.names.append(name)
                self.born.append(self.entered)
            self.entered += 1
        self._slots[name] = slot
        return slot

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The state besides `names`."""
        return {
            f"{prefix}_order": np.array([*self._slots.values()], np.int64),
            f"{prefix}_born": np.array([*self.born, self.entered], np.int64),
        }

    def restore(self, names: Sequence[str], arrays: Mapping[str, NDArray[Any]], prefix: str) -> None:
        """Go on from `names` and `arrays` of another. Raises `ValueError` where these do not fit together."""
        order, (*born, entered) = arrays[f"{prefix}_order"].tolist(), arrays[f"{prefix}_born"].tolist()
        if sorted(order) != [*range(len(names))] or len(born) != len(names) or len({*names}) < len(names):
            raise ValueError(f"{len(names)} names of {prefix} with {len(order)} places, or a name twice")
        if entered < len(names) or len(names) > self._most:
            raise ValueError(f"{len(names)} of {prefix}, of whom {entered} came and {self._most} may be kept")
        self.names, self.born, self.entered = list(names), born, entered
        self._slots = {self.names[slot]: slot for slot in order}


def grown(array: NDArray[Any], count: int) -> NDArray[Any]:
    """The array with room for `count` rows, doubled where it has to grow; new rows are 0."""
    if count <= len(array):
        return array
    larger = np.zeros((max(count, 2 * len(array), 16), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def name_of(cell: Any) -> str | None:
    """The name in a cell: of a number without its fraction of zero, so that 196.0 is ``196``; None where it is missing.

    >>> name_of(196.0), name_of("196"), name_of(float("nan")), name_of("")
    ('196', '196', None, None)
    """
    if isinstance(cell, str):
        return cell or None
    if isinstance(cell, float):
        if cell != cell:  # noqa: PLR0124 - NaN
            return None
        return str(int(cell)) if cell.is_integer() else repr(cell)
    return None if cell is None else str(cell)

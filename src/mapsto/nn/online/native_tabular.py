"""The C++ learner of tables (``native/csrc/tabular_learner.cpp``) as an object: whole parts of blocks go in, scores come out.

Members share a ring of 5,000 raw events and one scaler: a bank of nearest neighbours, rolling random forests, linear models, a small
network, and tables of what label follows which; mixtures that learn their weights make one answer of theirs.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.native.tabular import tabular_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EXAMPLE", "LATE_LABEL", "PASSED_OVER", "QUESTION", "Explained", "NativeTabular"]

EXAMPLE, QUESTION, LATE_LABEL, PASSED_OVER = range(4)
"""What an event is."""

_P, _I, _Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "error": (ctypes.c_char_p, ()),
    "new": (_P, (_I, _I, _I, ctypes.c_double, ctypes.c_uint64)),
    "free": (None, (_P,)),
    "members": (_I, (_P,)),
    "classes": (_I, (_P,)),
    "learnt": (ctypes.c_uint64, (_P,)),
    "add_column": (_I, (_P, _I)),
    "learn": (_I, (_P, _I, _P, _P, _P, _P, _P, _I, _P, _P)),
    "predict": (_I, (_P, _I, _P, _P)),
    "explain": (_I, (_P, _P, _P, _P, _P)),
    "past": (ctypes.c_double, (_P, _I, _P)),
    "importance": (None, (_P, _P)),
    "shares": (None, (_P, _P)),
    "list": (_I, (_P,)),
    "part": (
        ctypes.c_char_p,
        (_P, _I, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(_Z), ctypes.POINTER(_P)),
    ),
    "give": (_I, (_P, ctypes.c_char_p, ctypes.c_char_p, _Z, _P)),
    "restore": (_I, (_P,)),
}
_MOST_NEIGHBOURS = 16


class Explained(NamedTuple):
    """What stands behind the answer to one event."""

    members: dict[str, NDArray[np.float64]]
    """What each member says (K,)."""
    neighbours: list[tuple[float, NDArray[np.float64], float]]
    """The nearest past events, by rising distance: that, the features as numbers, the number of the class or the value."""


class NativeTabular:
    """The learner, with `columns` and classes that grow.

    >>> learner = NativeTabular(values=False, forests=True, labels=True, work=0.0, seed=0)
    >>> learner.add_column(of_words=False)
    >>> x, y = np.array([[0.0], [1.0]] * 50), np.array([0.0, 1.0] * 50)
    >>> scores = learner.learn(x, np.full(100, EXAMPLE, np.uint8), np.zeros(100, np.int32), y, 2)
    >>> bool((scores[-20:].argmax(1) == y[-20:]).all())
    True
    """

    def __init__(self, *, values: bool, forests: bool, labels: bool, work: float, seed: int) -> None:
        self._library = _loaded()
        self._handle = self._library.mapsto_online_new(values, forests, labels, work, seed)
        if not self._handle:
            raise MemoryError(self._error())
        self._values, self._forests, self._labels = values, forests, labels
        self._columns = 0
        self._one = _One(1)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.mapsto_online_free(self._handle)
            self._handle = None

    @property
    def members(self) -> list[str]:
        """Their names, in the order of their answers."""
        names = ["nearest 5", "nearest 15", "nearest 5 of 500", "nearest 5 of 150"]
        names += ["forest", "forest of large leaves", "forest of 1000", "forest of 250"] if self._forests else []
        kind, before = ("linear", "value") if self._values else ("softmax", "label")
        names += [
            kind,
            f"{kind} that forgets",
            f"{kind} by slow descent",
            f"{kind} by descent",
            "least squares",
            "network",
        ]
        return [*names, *([f"{before} before", f"{before}s lately"] if self._labels else [])]

    @property
    def classes(self) -> int:
        """How many it knows; 1 where it learns values."""
        return int(self._library.mapsto_online_classes(self._handle))

    @property
    def learnt(self) -> int:
        """Labels that it has learnt."""
        return int(self._library.mapsto_online_learnt(self._handle))

    def add_column(self, *, of_words: bool) -> None:
        """A column that later events have; the past ones lack it."""
        self._checked(self._library.mapsto_online_add_column(self._handle, of_words))
        self._columns += 1

    def learn(
        self,
        x: NDArray[np.float64],
        kinds: NDArray[np.uint8],
        slots: NDArray[np.int32],
        labels: NDArray[np.float64],
        stride: int,
        kept: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Take n events in order.

        Parameters
        ----------
        x
            (n, columns), words as the numbers of their categories.
        kinds, slots, labels
            (n,): what each event is; where a question is kept or a late label's question was; the class's number or the value.
        stride
            At least the number of classes after these events.
        kept
            What is kept of questions: features (slots, columns) and members' answers with the mixture's (slots, members + 1, stride).

        Returns
        -------
        NDArray
            (n, stride): the scores of before each label; NaN for what is passed over.
        """
        x, scores = np.ascontiguousarray(x, np.float64), np.zeros((len(x), stride))
        scores[kinds == PASSED_OVER] = np.nan
        features, answers = (None, None) if kept is None else (kept[0].ctypes.data, kept[1].ctypes.data)
        self._checked(
            self._library.mapsto_online_learn(
                *(self._handle, len(x), x.ctypes.data, kinds.ctypes.data, slots.ctypes.data, labels.ctypes.data),
                *(scores.ctypes.data, stride, features, answers),
            )
        )
        return scores

    def learn_one(self, address: int, label: float | None, stride: int) -> NDArray[np.float64]:
        """As `learn` of one event, whose columns lie at an address; without a label it is a question that is not kept.

        Its scores (1, stride) stand until the next event.
        """
        one = self._one
        if one.scores.shape[1] != stride:
            one = self._one = _One(stride)
        one.kind.value = QUESTION if label is None else EXAMPLE
        one.label.value = 0.0 if label is None else label
        one.scores.fill(0.0)
        self._checked(self._library.mapsto_online_learn(self._handle, 1, address, *one.pointers, stride, None, None))
        return one.scores

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (n, classes). Changes nothing."""
        x, scores = np.ascontiguousarray(x, np.float64), np.zeros((len(x), self.classes))
        self._checked(self._library.mapsto_online_predict(self._handle, len(x), x.ctypes.data, scores.ctypes.data))
        return scores

    def explain(self, x: NDArray[np.float64]) -> Explained:
        """What stands behind the answer to one event (columns,)."""
        x, p = np.ascontiguousarray(x, np.float64), np.zeros((len(self.members), self.classes))
        backs, distances = np.zeros(_MOST_NEIGHBOURS, np.int32), np.zeros(_MOST_NEIGHBOURS)
        pointers = (array.ctypes.data for array in (x, p, backs, distances))
        count = self._library.mapsto_online_explain(self._handle, *pointers)
        self._checked(count)
        near: list[tuple[float, NDArray[np.float64], float]] = []
        for back, distance in zip(backs[:count].tolist(), distances[:count].tolist(), strict=True):
            row = np.zeros(self._columns)
            near.append((distance, row, self._library.mapsto_online_past(self._handle, back, row.ctypes.data)))
        return Explained(dict(zip(self.members, p, strict=True)), near)

    def importance(self) -> NDArray[np.float64]:
        """How much of the forests' gain is each column's (columns,); it sums to 1, or is 0 without trees."""
        sums = np.zeros(self._columns)
        self._library.mapsto_online_importance(self._handle, sums.ctypes.data)
        return sums

    def shares(self) -> dict[str, float]:
        """Each member's present share of the answer."""
        shares = np.zeros(len(self.members))
        self._library.mapsto_online_shares(self._handle, shares.ctypes.data)
        return dict(zip(self.members, shares.tolist(), strict=True))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, as copies."""
        count = self._checked(self._library.mapsto_online_list(self._handle))
        found: dict[str, NDArray[Any]] = {}
        kind, length, data = ctypes.c_char_p(), _Z(), _P()
        for number in range(count):
            pointers = (ctypes.byref(each) for each in (kind, length, data))
            name = self._library.mapsto_online_part(self._handle, number, *pointers).decode()
            dtype = np.dtype((kind.value or b"").decode())
            held = ctypes.string_at(data, length.value * dtype.itemsize) if length.value else b""
            found[name] = np.frombuffer(held, dtype).copy()
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]], *, columns: int) -> None:
        """Go on from another's `arrays`, which had so many columns. Raises `ValueError` where they do not fit together."""
        held: list[NDArray[Any]] = []
        for name, array in arrays.items():
            flat = np.ascontiguousarray(array).reshape(-1)
            held.append(flat)
            if self._library.mapsto_online_give(
                self._handle, name.encode(), flat.dtype.str.encode(), flat.size, flat.ctypes.data
            ):
                raise ValueError(self._error())
        if self._library.mapsto_online_restore(self._handle):
            raise ValueError(self._error())
        if len(arrays["inputs.means"]) != columns:
            raise ValueError(f"the state is of {len(arrays['inputs.means'])} columns, not {columns}")
        self._columns = columns

    def _error(self) -> str:
        return (self._library.mapsto_online_error() or b"").decode(errors="replace")

    def _checked(self, code: int) -> int:
        if code < 0:
            raise MemoryError(self._error())
        return code


class _One:
    """What native code is shown of one event and where it writes its scores, at places that stay."""

    def __init__(self, stride: int) -> None:
        self.kind, self.label = ctypes.c_uint8(), ctypes.c_double()
        self._slot = ctypes.c_int32(-1)
        self.scores = np.zeros((1, stride))
        held = (ctypes.addressof(each) for each in (self.kind, self._slot, self.label))
        self.pointers = (*held, self.scores.ctypes.data)


_lock = threading.Lock()


def _loaded() -> Any:
    with _lock:
        return _load()


@cache
def _load() -> Any:
    library = ctypes.CDLL(str(tabular_library()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"mapsto_online_{name}")
        function.restype, function.argtypes = result, arguments
    return library

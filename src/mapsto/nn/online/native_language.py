"""The C++ language model (``native/csrc/language_learner.cpp``) as an object: texts go in, probabilities of each next byte come out."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mapsto.native.tabular import learner_library

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INPUTS", "MEMBERS", "UPDATES", "LanguageFields", "NativeLanguage"]

MEMBERS = ("both", "contexts", "network")
UPDATES = ("none", "all", "adapters")
INPUTS = (*(f"order {order}" for order in range(7)), "word", "two words", "match", "network")
"""What is mixed, in the order of its shares."""
_P, _I, _Z = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "error": (ctypes.c_char_p, ()),
    "new": (_P, (_P,)),
    "free": (None, (_P,)),
    "learn": (_I, (_P, _I, ctypes.c_char_p, _P, _P)),
    "answer": (_I, (_P, _P)),
    "shares": (None, (_P, _P)),
    "steps": (ctypes.c_uint64, (_P,)),
    "list": (_I, (_P,)),
    "part": (
        ctypes.c_char_p,
        (_P, _I, ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(_Z), ctypes.POINTER(_P)),
    ),
    "give": (_I, (_P, ctypes.c_char_p, ctypes.c_char_p, _Z, _P)),
    "restore": (_I, (_P,)),
}


class LanguageFields(NamedTuple):
    """As the fields of `mapsto.mappings.online.language.Language`."""

    members: str = "both"
    order: int = 6
    table_bits: int = 18
    frozen: bool = False
    hidden: int = 128
    chunk: int = 32
    replay: int = 3
    recent: int = 1
    memory: int = 1_000_000
    update: str = "all"
    rank: int = 8
    rate: float = 0.0015
    seed: int = 0


class _Given(ctypes.Structure):
    """As `Given` in the C++."""

    _fields_ = (
        ("rate", ctypes.c_double),
        ("seed", ctypes.c_uint64),
        ("memory", ctypes.c_uint64),
        *(
            (name, ctypes.c_int32)
            for name in (
                *("members", "order", "table_bits", "frozen"),
                *("hidden", "chunk", "replay", "recent", "rank", "update"),
            )
        ),
    )


class NativeLanguage:
    """The model at work.

    >>> model = NativeLanguage(LanguageFields(hidden=16, table_bits=10, memory=10_000))
    >>> scores, parts = model.learn(b"abcabcabcabcabcabcabcabcabcabc")
    >>> scores.shape, parts.shape, float(scores[-1, ord("c")]) > 0.6
    ((30, 256), (30, 2), True)
    """

    def __init__(self, fields: LanguageFields) -> None:
        self._library = _loaded()
        self._fields = fields
        given = _Given(
            **{
                **fields._asdict(),
                "members": MEMBERS.index(fields.members),
                "update": UPDATES.index(fields.update),
                "recent": min(fields.recent, fields.replay),
            }
        )
        self._handle = self._library.mapsto_language_new(ctypes.byref(given))
        if not self._handle:
            raise MemoryError(self._error())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.mapsto_language_free(self._handle)
            self._handle = None

    @property
    def steps(self) -> int:
        """Steps of learning that the network has made."""
        return int(self._library.mapsto_language_steps(self._handle))

    def learn(self, text: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Take a text in order: probabilities (n, 256) from before each byte came, and what the contexts alone and the network alone
        gave to what came (n, 2), NaN for what is not there.
        """
        scores, parts = np.empty((len(text), 256)), np.empty((len(text), 2))
        self._checked(
            self._library.mapsto_language_learn(self._handle, len(text), text, scores.ctypes.data, parts.ctypes.data)
        )
        return scores, parts

    def answer(self) -> NDArray[np.float64]:
        """Probabilities (256,) of the next byte. Changes nothing."""
        scores = np.empty(256)
        self._checked(self._library.mapsto_language_answer(self._handle, scores.ctypes.data))
        return scores

    def shares(self) -> dict[str, float]:
        """How much of the mixture's logits each of `INPUTS` has made lately; it sums to 1, or is 0."""
        shares = np.zeros(len(INPUTS))
        self._library.mapsto_language_shares(self._handle, shares.ctypes.data)
        return dict(zip(INPUTS, shares.tolist(), strict=True))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state, as copies."""
        count = self._checked(self._library.mapsto_language_list(self._handle))
        found: dict[str, NDArray[Any]] = {}
        kind, length, data = ctypes.c_char_p(), _Z(), _P()
        for number in range(count):
            pointers = (ctypes.byref(each) for each in (kind, length, data))
            name = self._library.mapsto_language_part(self._handle, number, *pointers).decode()
            dtype = np.dtype((kind.value or b"").decode())
            held = ctypes.string_at(data, length.value * dtype.itemsize) if length.value else b""
            found[name] = np.frombuffer(held, dtype).copy()
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from another's `arrays`. Raises `ValueError` where they do not fit together."""
        held: list[NDArray[Any]] = []
        for name, array in arrays.items():
            flat = np.ascontiguousarray(array).reshape(-1)
            held.append(flat)
            if self._library.mapsto_language_give(
                self._handle, name.encode(), flat.dtype.str.encode(), flat.size, flat.ctypes.data
            ):
                raise ValueError(self._error())
        if self._library.mapsto_language_restore(self._handle):
            raise ValueError(self._error())

    def _error(self) -> str:
        return (self._library.mapsto_language_error() or b"").decode(errors="replace")

    def _checked(self, code: int) -> int:
        if code < 0:
            raise MemoryError(self._error())
        return code


_lock = threading.Lock()


def _loaded() -> Any:
    with _lock:
        return _load()


@cache
def _load() -> Any:
    library = ctypes.CDLL(str(learner_library("language_learner")))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, f"mapsto_language_{name}")
        function.restype, function.argtypes = result, arguments
    return library

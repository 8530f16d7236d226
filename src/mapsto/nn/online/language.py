"""The live language model of a stream of bytes, and how it goes on with a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.text.byte_names import BYTE_NAMES, byte_of
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Block, EventSignature
from mapsto.nn.online.draws import number_below
from mapsto.nn.online.language_record import LanguageRecord
from mapsto.nn.online.learning import Answered, Answers, StreamLearner
from mapsto.nn.online.native_language import LanguageFields, NativeLanguage
from mapsto.nn.online.prequential import Record
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LanguageLearner"]

_PARTS = ("n-gram alone", "network alone")
_SHARES = {
    "network": ("network",),
    "orders 0 and 1": ("order 0", "order 1"),
    "orders 2 and 3": ("order 2", "order 3"),
    "orders 4 and more": ("order 4", "order 5", "order 6"),
    "words": ("word", "two words"),
    "match": ("match",),
}
_GRAIN = 1 << 53


class LanguageLearner(StreamLearner):
    """What comes is learnt in its order: an event is a byte, and what it is to be foretold from are the bytes before it.

    A question is answered with what the next byte may be; a label that comes late is set aside, since its text has gone on.
    """

    def __init__(self, fields: LanguageFields) -> None:
        self._fields = fields
        self._native = NativeLanguage(fields)
        self._taken = 0
        self.aside = {}

    @property
    def signature(self) -> EventSignature:
        return EventSignature(classes=BYTE_NAMES)

    @property
    def size(self) -> tuple[int, int]:
        return 0, len(BYTE_NAMES)

    @property
    def taken(self) -> int:
        """Bytes that were learnt."""
        return self._taken

    def record(self, known: int) -> Record:
        return LanguageRecord()

    def learn(self, block: Block, answered: Answered | None = None) -> NDArray[np.float64]:
        table = np.full((len(block), len(BYTE_NAMES)), np.nan)
        taken: list[int] = []
        text = bytearray()
        parts: list[NDArray[np.float64]] = []

        def flush() -> None:
            if text:
                places = taken[-len(text) :]
                table[places], found = self._native.learn(bytes(text))
                parts.append(found)
                text.clear()

        labels = block.y.tolist()
        if not self._taken and len(block):
            self._require_bytes(block, labels)
        for event, (has_x, has_y) in enumerate(zip(block.has_x.tolist(), block.has_y.tolist(), strict=True)):
            byte = byte_of(str(labels[event])) if has_y else None
            why = block.broken.get(event)
            if why is None and has_y and byte is None:
                why = "a label that is no byte"
            elif why is None and has_y and not has_x:
                why = "a byte that comes late, when its text has gone on"
            if why is not None:
                self.aside[why] = self.aside.get(why, 0) + 1
            elif byte is not None:
                text.append(byte)
                taken.append(event)
            elif has_x:
                flush()
                table[event] = self._native.answer()
        flush()
        self._taken += len(taken)
        if answered is not None and taken:
            events = np.array(taken, np.int64)
            codes = np.array([byte_of(str(labels[event])) for event in taken], np.int64)
            alone: dict[str, NDArray[np.float64]] | None = None
            if self._is_mixed:
                alone = {str(name): p for name, p in zip(_PARTS, np.concatenate(parts).T, strict=True)}
            answered(Answers(events, table[events], codes, parts=alone))
        return table

    def predict(self, block: Block) -> NDArray[np.float64]:
        """What the next byte may be, which is the same for every question. Changes nothing."""
        table = np.full((len(block), len(BYTE_NAMES)), np.nan)
        asked = block.has_x.copy()
        asked[list(block.broken)] = False
        if asked.any():
            table[asked] = self._native.answer()
        return table

    def reading(self) -> LanguageLearner:
        """Another one that goes on from here, and reads without learning."""
        other = LanguageLearner(self._fields._replace(frozen=True))
        other.restore(self.signature, self.arrays(), self.values())
        return other

    def continuation(
        self, beginning: str | bytes = "", *, length: int = 200, temperature: float = 0.8, seed: int = 0
    ) -> bytes:
        """How a text may go on. Changes nothing.

        Parameters
        ----------
        beginning
            What is read first, after all that was learnt; a text as UTF-8.
        length
            Bytes that are drawn.
        temperature
            p is taken to the power of 1 / temperature; 0: always the likeliest byte.
        seed
            Of the draws.

        Raises `SpecError` for a length below 0, or a temperature that is none.
        """
        if type(length) is not int or length < 0:
            raise SpecError(
                f"{length!r} is no length", where="continuation: length", hint="give a number of bytes, 0 or more"
            )
        if not (math.isfinite(temperature) and temperature >= 0):
            raise SpecError(
                f"{temperature!r} is no temperature", where="continuation: temperature", hint="give 0 or more"
            )
        reader = self.reading()._native
        if beginning:
            reader.learn(beginning.encode() if isinstance(beginning, str) else bytes(beginning))
        drawn = bytearray()
        for place in range(length):
            p = reader.answer()
            if temperature > 0:
                scaled = np.log(p) / temperature
                sums = np.cumsum(np.exp(scaled - scaled.max()))
                byte = int(np.searchsorted(sums, number_below(_GRAIN, seed, place) / _GRAIN * sums[-1], side="right"))
            else:
                byte = int(p.argmax())
            drawn.append(min(byte, 255))
            reader.learn(bytes(drawn[-1:]))
        return bytes(drawn)

    def shares(self) -> Mapping[str, float]:
        if not self._is_mixed or not self._taken:
            return {}
        each = self._native.shares()
        return {name: sum(each[one] for one in members) for name, members in _SHARES.items()}

    def tables(self) -> list[dict[str, Any]]:
        rows = [[name, 100 * share] for name, share in self._native.shares().items() if share > 0]
        found: list[dict[str, Any]] = []
        if rows:
            found.append(
                {
                    "title": "Whose word counts: each input's part of the mixture's logits, lately",
                    "columns": ["input", "share"],
                    "rows": rows,
                    "units": {"share": "%"},
                }
            )
        return found

    def _require_bytes(self, block: Block, labels: Sequence[Any]) -> None:
        """Raises `DomainError` for a stream of something else: one with columns whose first label is no byte."""
        labelled = [event for event in np.flatnonzero(block.has_x & block.has_y).tolist() if event not in block.broken]
        for event in labelled[:1]:
            if block.x and byte_of(str(labels[event])) is None:
                raise DomainError(
                    f"the stream's label '{short(str(labels[event]))}' is no byte, and it has columns: {few(list(block.x))}",
                    where="online.language",
                    hint="learn from streams.bytes, or with another learner",
                )

    # -- state

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._native.arrays()

    def values(self) -> dict[str, Any]:
        return {"taken": self._taken, "aside": dict(self.aside)}

    def restore(self, signature: EventSignature, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        if signature.classes != BYTE_NAMES:
            raise ValueError("its classes are not the 256 bytes")
        self._native.restore(arrays)
        self._taken = int(values["taken"])
        self.aside = {str(reason): int(count) for reason, count in values["aside"].items()}
        scores = self._native.answer()
        if not np.isfinite(scores).all() or abs(float(scores.sum()) - 1.0) > 1e-6:
            raise ValueError("the probabilities of the next byte are none")

    @property
    def _is_mixed(self) -> bool:
        return self._fields.members == "both"

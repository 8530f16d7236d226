"""Labels and the names of events without what is personal in them, before the process that stores them does.

A label is masked as the settings say; so is the class that was answered, so that the two still compare. The name of an event stays
different from every other, and so has a pseudonym even where the setting is ``mask``: two labels would be one otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from mapsto.data.privacy.masking import Masked, TextMasking
from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import Privacy
from mapsto.service.refusal import Refusal
from mapsto.service.state import FeedbackRow

__all__ = ["DROPPED", "RowMasking", "Stored", "Tell", "entities_in", "masking_of"]

DROPPED = -1
"""In the place of the position of a row that must not be stored."""
_MASK = re.compile(r"<(\w+)(?::\w+)?>")


class Stored(NamedTuple):
    """What became of rows that were to be stored."""

    positions: list[int]
    """Of each row; see `State.append`."""
    masked: Sequence[int] = ()
    """Numbers of the rows whose label was changed by masking."""


Tell = Callable[["Stored | Refusal"], None]
"""Told of the positions of a request's rows, or of why they were not stored."""


def entities_in(given: Sequence[str], masked: Sequence[str]) -> list[str]:
    """What masking took out of texts.

    >>> entities_in(["x@example.org", "<b>"], ["<EMAIL_ADDRESS>", "<b>"])
    ['EMAIL_ADDRESS']
    """
    texts = [text for before, text in zip(given, masked, strict=True) if text != before]
    return sorted({found for text in texts for found in _MASK.findall(text)})


def masking_of(settings: Privacy, key: Path) -> TextMasking:
    """What masks texts as settings say, with the key in a file. Raises as `TextMasking` and `Pseudonyms.of_file` do."""
    return TextMasking(settings, Pseudonyms.of_file(key))


class RowMasking:
    """Masks what is to be stored."""

    def __init__(self, masking: TextMasking) -> None:
        self._masking = masking
        self.counts: Counter[str] = Counter()
        """Rows and labels, by what became of them: ``masked`` and ``dropped``."""

    def rows(self, rows: Sequence[FeedbackRow], tell: Tell) -> Generator[None, None, tuple[list[FeedbackRow], Tell]]:
        """Rows that may be stored, and what is then to be told of their positions, in a step a row: others may go on in between.

        Raises `MaskingError`: then none may be stored.
        """
        masked: list[FeedbackRow | None] = []
        for row in rows:
            masked.append(self._row(row))
            yield
        pairs = enumerate(zip(rows, masked, strict=True))
        changed = [number for number, (row, own) in pairs if own is not None and own.label != row.label]
        if None not in masked and not changed:
            return [row for row in masked if row is not None], tell

        def told(found: Stored | Refusal) -> None:
            if isinstance(found, Refusal):
                tell(found)
                return
            positions = iter(found.positions)
            tell(Stored([DROPPED if row is None else next(positions) for row in masked], changed))

        return [row for row in masked if row is not None], told

    def labels(self, labels: Sequence[str]) -> Generator[None, None, list[str]]:
        """Labels of examples, in a step a label.

        Raises `Refusal` (400) where one must not be stored, `MaskingError` where one cannot be masked.
        """
        found: dict[str, Masked] = {}
        for label in dict.fromkeys(labels):
            found[label] = self._masking.masked(label)
            yield
        for number, label in enumerate(labels):
            if found[label].dropped:
                self.counts["dropped"] += 1
                raise Refusal(
                    400, f"label {number + 1} holds {', '.join(found[label].found)}, which this service does not store"
                )
        self.counts["masked"] += sum(bool(each.found) for each in found.values())
        return [found[label].text for label in labels]

    def _row(self, row: FeedbackRow) -> FeedbackRow | None:
        label, answer = self._masking.masked(row.label), self._masking.masked(row.answer)
        event = self._masking.masked(row.event, distinct=True)
        if not (label.found or answer.found or event.found):
            return row
        if label.dropped or answer.dropped or event.dropped:
            self.counts["dropped"] += 1
            return None
        self.counts["masked"] += 1
        return replace(row, label=label.text, answer=answer.text, event=event.text)

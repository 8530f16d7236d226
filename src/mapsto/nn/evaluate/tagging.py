"""How well words are tagged: the share of words with the right tag, and of spans that are found with both ends and the label right.

``F1 = 2 · right / (spans there + spans said)``, exact match (Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task",
2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapsto_runtime.preprocessing.words import spans_of

__all__ = ["TaggingFigures", "tagging_figures"]


@dataclass(frozen=True, kw_only=True)
class TaggingFigures:
    """Counts over all sentences."""

    words: int
    right: int
    """Words with the right tag."""
    per_label: dict[str, tuple[int, int, int]]
    """Label → spans that are right, that are there, that were said."""

    @property
    def f1(self) -> float:
        """Of all labels together, in percent."""
        return _f1(*(sum(column) for column in zip(*self.per_label.values(), strict=True))) if self.per_label else 0.0

    def rows(self) -> list[dict[str, float | str]]:
        """Precision, recall, F1 (%) and the number of spans of each label."""
        return [
            {
                "label": label,
                "precision": 100 * right / max(said, 1),
                "recall": 100 * right / max(there, 1),
                "f1": _f1(right, there, said),
                "support": there,
            }
            for label, (right, there, said) in sorted(self.per_label.items())
        ]


def tagging_figures(
    wanted: Sequence[Sequence[str]], given: Sequence[Sequence[str]], *, known: Sequence[str]
) -> TaggingFigures:
    """Of sentences, each a tag a word; `known` are all tags.

    >>> found = tagging_figures([["B-X", "I-X", "O"]], [["B-X", "O", "O"]], known=["O", "B-X", "I-X"])
    >>> found.right, found.f1, found.per_label
    (2, 0.0, {'X': (0, 1, 1)})
    """
    right = words = 0
    counts: dict[str, list[int]] = {}
    for own, said in zip(wanted, given, strict=True):
        words += len(own)
        right += sum(one == other for one, other in zip(own, said, strict=True))
        there, found = set(spans_of(own, known=known)), set(spans_of(said, known=known))
        for place, spans in enumerate((there & found, there, found)):
            for *_, label in spans:
                counts.setdefault(label, [0, 0, 0])[place] += 1
    per_label = {label: (one, two, three) for label, (one, two, three) in counts.items()}
    return TaggingFigures(words=words, right=right, per_label=per_label)


def _f1(right: int, there: int, said: int) -> float:
    return 200 * right / max(there + said, 1)

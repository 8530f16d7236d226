"""BIOES, BILOU and BMES, which say where spans end and which words are one alone, as BIO: ``B-`` begins a span, ``I-`` goes on.

Ratinov and Roth, "Design Challenges and Misconceptions in Named Entity Recognition", 2009, compare the schemes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mapsto_runtime.preprocessing.words import OUTSIDE

__all__ = ["as_bio", "has_ends", "pieces_of"]

_BEGINS = frozenset("BSUW")
_GOES_ON = frozenset("IELM")
_ENDS = frozenset("ELSUW")
"""After such a tag the next word begins a span."""
_OUTSIDE_LOOKALIKES = frozenset((OUTSIDE, OUTSIDE.lower(), "0"))


def has_ends(tags: Iterable[str]) -> bool:
    """Whether tags are of a scheme that says where spans end: all have a place in a span before their label, and some an end.

    >>> has_ends(["O", "B-X", "E-X", "S-Y"]), has_ends(["O", "B-X", "I-X"]), has_ends(["O", "E-MAIL", "PHONE"])
    (True, False, False)
    """
    own = set(tags) - _OUTSIDE_LOOKALIKES
    if not all(len(tag) > 2 and tag[1] == "-" and tag[0] in _BEGINS | _GOES_ON for tag in own):
        return False
    places = {tag[0] for tag in own}
    return bool(places & set("BIM")) and bool(places - set("BI"))


def as_bio(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags of a sentence in BIO.

    >>> as_bio(["B-X", "E-X", "S-X", "O", "U-Y", "L-Y"])
    ('B-X', 'I-X', 'B-X', 'O', 'B-Y', 'B-Y')
    """
    found: list[str] = []
    open_label = ""
    for tag in tags:
        if tag in _OUTSIDE_LOOKALIKES:
            found.append(tag)
            open_label = ""
            continue
        place, label = tag[0], tag[2:]
        found.append(f"{'I' if place in _GOES_ON and open_label == label else 'B'}-{label}")
        open_label = "" if place in _ENDS else label
    return tuple(found)


def pieces_of(word: str, tag: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of one with blanks inside, and the tags that make them one span.

    >>> pieces_of("New York", "B-PLACE"), pieces_of("New York", "PLACE")
    ((('New', 'York'), ('B-PLACE', 'I-PLACE')), (('New', 'York'), ('PLACE', 'PLACE')))
    """
    words = tuple(word.split())
    more = f"I-{tag[2:]}" if tag.startswith("B-") and len(tag) > 2 else tag
    return words, (tag, *[more] * (len(words) - 1))

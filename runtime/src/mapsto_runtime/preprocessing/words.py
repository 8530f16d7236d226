"""The words of a text, their tokens, and spans of words with one label: what a network that tags every token answers with.

A word is a run of letters and digits with their accents and vowel signs, and with what stands inside it such as ``10:30`` or ``don't``; any
other sign is a word of its own. It is known by its first token (Devlin et al., "BERT", 2019, on named entities). Tags are plain, as
``DATE``, or say where a span begins, as ``B-DATE`` and ``I-DATE`` (Ramshaw and Marcus, "Text Chunking Using Transformation-Based
Learning", 1995).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["OUTSIDE", "Span", "first_tokens", "label_of", "spans_of", "words_of"]

OUTSIDE = "O"
"""The tag of a word that belongs to nothing."""
_MARK = "\u0301"
"""Stands for every mark that continues a letter or sign."""
_WORD = re.compile(rf"\w[\w{_MARK}]*(?:[^\w\s]+\w[\w{_MARK}]*)*|[^\w\s]{_MARK}*")
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, kw_only=True)
class Span:
    """Words of a text that have one label."""

    text: str
    start: int
    """The first letter's place in the text, counted from 0."""
    end: int
    """One behind the last letter's."""
    label: str
    probability: float
    """The least of its words, 0 to 1."""


def words_of(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends.

    >>> [text[start:end] for text in ["At 10:30, don't!"] for start, end in words_of(text)]
    ['At', '10:30', ',', "don't", '!']
    >>> [text[start:end] for text in ["हिन्दी भाषा"] for start, end in words_of(text)]
    ['हिन्दी', 'भाषा']
    """
    if not text.isascii():
        text = text.translate({ord(letter): _MARK for letter in set(text) if _continues(letter)})
    return [match.span() for match in _WORD.finditer(text)]


def _continues(letter: str) -> bool:
    """Whether it belongs to the letter or sign before it: an accent, a vowel sign, a joiner."""
    return letter in _JOINERS or unicodedata.category(letter).startswith("M")


def first_tokens(offsets: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> list[int]:
    """Of each word its first token, by where tokens begin and end in the text; -1 where none is read, as behind the longest length.

    >>> first_tokens([(0, 0), (0, 2), (2, 4), (5, 6), (0, 0)], [(0, 4), (5, 6), (7, 9)])
    [1, 3, -1]
    """
    found = [-1] * len(words)
    word = 0
    for place, (start, end) in enumerate(offsets):
        if start == end:  # a token that stands for no letters, as those that begin and end a text
            continue
        while word < len(words) and words[word][1] <= start:
            word += 1
        if word < len(words) and found[word] < 0 and start < words[word][1] and end > words[word][0]:
            found[word] = place
    return found


def label_of(tag: str) -> str:
    """A tag without its place in a span; empty for a word that belongs to nothing.

    >>> label_of("B-DATE"), label_of("DATE"), label_of("O")
    ('DATE', 'DATE', '')
    """
    if tag == OUTSIDE:
        return ""
    return tag[2:] if tag[:2] in ("B-", "I-") and len(tag) > 2 else tag


def spans_of(tags: Sequence[str], *, known: Sequence[str]) -> list[tuple[int, int, str]]:
    """Spans as (first word, one behind the last, label).

    Parameters
    ----------
    tags
        Of the words, in order. An ``I-`` that continues nothing begins a span.
    known
        All tags. Where none says what begins a span, neighbours with one tag are one span if ``O`` is among the tags; if it is not, as with
        parts of speech, every word is a span.

    >>> spans_of(["B-X", "I-X", "O", "I-Y", "B-Y"], known=["O", "B-X", "I-X", "B-Y", "I-Y"])
    [(0, 2, 'X'), (3, 4, 'Y'), (4, 5, 'Y')]
    >>> spans_of(["X", "X", "O"], known=["O", "X"]), spans_of(["N", "N"], known=["N", "V"])
    ([(0, 2, 'X')], [(0, 1, 'N'), (1, 2, 'N')])
    """
    alone = OUTSIDE not in known and not any(tag[:2] in ("B-", "I-") for tag in known)
    found: list[tuple[int, int, str]] = []
    for place, tag in enumerate(tags):
        label = label_of(tag)
        if not label:
            continue
        goes_on = bool(found) and found[-1][1] == place and found[-1][2] == label
        if goes_on and not alone and not (tag.startswith("B-") and len(tag) > 2):
            found[-1] = (found[-1][0], place + 1, label)
        else:
            found.append((place, place + 1, label))
    return found

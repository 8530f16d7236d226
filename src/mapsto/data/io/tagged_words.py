"""Sentences whose words have tags: JSON Lines or Parquet with two lists, or a word and its tag a line, as CoNLL's files have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mapsto.data.io.tag_schemes import as_bio, has_ends, pieces_of
from mapsto.data.io.texts import lists_in
from mapsto.errors import DataError, SpecError, nearest
from mapsto_runtime.preprocessing.json_lines import is_json_lines, json_objects
from mapsto_runtime.preprocessing.lines import lines_of
from mapsto_runtime.preprocessing.raw_tables import decoded
from mapsto_runtime.shown import short

__all__ = ["Sentence", "read_tagged"]

_NUMBERED = re.compile(r"\d+([-.]\d+)?")
"""How CoNLL-U numbers words: ``4``, a range ``4-5``, a word left unsaid ``4.1``."""


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """Words, without blanks inside, and their tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_tagged(path: Path, *, tokens: str, tags: str) -> tuple[list[Sentence], tuple[str, ...]]:
    """The sentences of a file, and notes on how it was read.

    Raises
    ------
    DataError
        The file cannot be read, holds no sentence, or one with another number of tags than words.
    SpecError
        There is no such column.
    """
    where = str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})",
            where=where,
            hint="give a .jsonl or .parquet file, or a word and its tag a line",
        ) from error
    parquet = content.startswith(b"PAR1")
    text, notes = ("", []) if parquet else decoded(content, where)
    if parquet or is_json_lines(text):
        found = _of_lists(path, text, tokens, tags)
    else:
        found, more = _of_lines(text, where)
        notes += more
    if not found:
        raise DataError("holds no sentences", where=where, hint="give a word and its tag a line, or lists of both")
    if has_ends(tag for sentence in found for tag in sentence.tags):
        found = [replace(sentence, tags=as_bio(sentence.tags)) for sentence in found]
        notes.append("tags say where spans end, too, as in BIOES or BILOU, and are read as B- and I-")
    whole, parted = _without_blanks(found)
    if parted:
        have = "word has" if len(parted) == 1 else "words have"
        notes.append(
            f"{len(parted)} {have} blanks inside, as '{short(parted[0])}', and each is read as several words of one span, as in a text"
        )
    return whole, tuple(notes)


def _without_blanks(sentences: Sequence[Sentence]) -> tuple[list[Sentence], list[str]]:
    """The sentences with each word that has blanks inside as several, and those words."""
    found: list[Sentence] = []
    parted: list[str] = []
    for sentence in sentences:
        parted += [word for word in sentence.words if len(word.split()) > 1]
        pieces = [pieces_of(word, tag) for word, tag in zip(sentence.words, sentence.tags, strict=True)]
        words = tuple(word for own, _ in pieces for word in own)
        found.append(Sentence(words=words, tags=tuple(tag for _, own in pieces for tag in own)))
    return found, parted


def _of_lists(path: Path, text: str, tokens: str, tags: str) -> list[Sentence]:
    columns = _columns(path, text)
    for name in (tokens, tags):
        if name not in columns:
            raise SpecError(
                f"there is no column '{short(name)}'", where=str(path), hint=nearest(name, columns, most=20)
            )
    found: list[Sentence] = []
    for row, (words, own) in enumerate(zip(lists_in(path, tokens), lists_in(path, tags), strict=True)):
        if words is None or own is None or len(words) != len(own):
            counts = (
                "has no list of both" if words is None or own is None else f"has {len(words)} words and {len(own)} tags"
            )
            raise DataError(
                f"row {row + 1} {counts}", where=str(path), hint="give each word one tag, O where it belongs to nothing"
            )
        found.append(_sentence(words, own, f"row {row + 1}", str(path)))
    return [sentence for sentence in found if sentence.words]


def _columns(path: Path, text: str) -> list[str]:
    if text:
        return list(dict.fromkeys(name for row in json_objects(text, str(path)) for name in row))
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _of_lines(text: str, where: str) -> tuple[list[Sentence], list[str]]:
    """A word and its tag a line, the first and the last of its columns; a blank line ends a sentence. And notes.

    Where lines have tabs, those of ``#`` without one are comments. Ten columns that begin with a number are CoNLL-U (Nivre et al.,
    "Universal Dependencies v2", 2020): the second is the word and the fourth its part of speech.
    """
    lines = lines_of(text)
    tabbed = any("\t" in line for line in lines)
    comments = [tabbed and line.startswith("#") and "\t" not in line for line in lines]
    rows = [
        (number, [] if not line.strip() else line.split("\t") if "\t" in line else line.split())
        for number, (line, comment) in enumerate(zip(lines, comments, strict=True), 1)
        if not comment
    ]
    rows.append((len(lines) + 1, []))
    universal = _is_universal([parts for _, parts in rows if parts])
    found: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, parts in rows:
        if parts and parts[0] != "-DOCSTART-":
            if len(parts) < 2:
                raise DataError(
                    f"line {number} holds '{short(parts[0].strip())}', a word without a tag",
                    where=where,
                    hint="write each word, a tab and its tag on a line, and a blank line between sentences",
                )
            if (
                universal and not parts[0].isdigit()
            ):  # a range of words as they are written together, or one left unsaid
                continue
            words.append(parts[1 if universal else 0])
            tags.append(parts[3 if universal else -1].strip())
        elif words:
            found.append(_sentence(tuple(words), tuple(tags), f"the sentence before line {number}", where))
            words, tags = [], []
    count = sum(comments)
    notes = [f"{count} {'line' if count == 1 else 'lines'} that begin with # are left out as comments"] if count else []
    if universal:
        notes.append("it is CoNLL-U: column 2 is read as the word and column 4, its part of speech, as its tag")
    return found, notes


def _is_universal(rows: Sequence[Sequence[str]]) -> bool:
    return bool(rows) and all(len(parts) == 10 and _NUMBERED.fullmatch(parts[0]) for parts in rows)


def _sentence(words: tuple[str, ...], tags: tuple[str, ...], place: str, where: str) -> Sentence:
    tags = tuple(tag.strip() for tag in tags)
    if not all(word.strip() for word in words) or not all(tags):
        raise DataError(
            f"{place} holds an empty word or tag",
            where=where,
            hint="drop it; O is the tag of a word that belongs to nothing",
        )
    return Sentence(words=tuple(word.strip() for word in words), tags=tags)

"""Sentences whose words have tags: JSON Lines or Parquet with two lists, or a word and its tag a line, as CoNLL's files have them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mapsto.data.io.texts import lists_in
from mapsto.errors import DataError, SpecError, nearest
from mapsto_runtime.preprocessing.json_lines import is_json_lines
from mapsto_runtime.preprocessing.raw_tables import decoded
from mapsto_runtime.shown import short

__all__ = ["Sentence", "read_tagged"]


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """Words and their tags."""

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
    text, notes = ("", ()) if parquet else decoded(content, where)
    found = _of_lists(path, text, tokens, tags) if parquet or is_json_lines(text) else _of_lines(text, where)
    if not found:
        raise DataError("holds no sentences", where=where, hint="give a word and its tag a line, or lists of both")
    return found, tuple(notes)


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
        import json

        return list(dict.fromkeys(name for line in text.splitlines() if line.strip() for name in json.loads(line)))
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _of_lines(text: str, where: str) -> list[Sentence]:
    """A word and its tag a line, the first and the last of its columns; a blank line ends a sentence."""
    found: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*text.splitlines(), ""]):
        parts = line.split("\t") if "\t" in line else line.split()
        if line.strip() and parts[0] != "-DOCSTART-":
            if len(parts) < 2:
                raise DataError(
                    f"line {number + 1} holds '{short(line.strip())}', a word without a tag",
                    where=where,
                    hint="write each word, a tab and its tag on a line, and a blank line between sentences",
                )
            words.append(parts[0])
            tags.append(parts[-1].strip())
        elif words:
            found.append(_sentence(tuple(words), tuple(tags), f"the sentence before line {number + 1}", where))
            words, tags = [], []
    return found


def _sentence(words: tuple[str, ...], tags: tuple[str, ...], place: str, where: str) -> Sentence:
    if not all(word.strip() for word in words) or not all(tags):
        raise DataError(
            f"{place} holds an empty word or tag",
            where=where,
            hint="drop it; O is the tag of a word that belongs to nothing",
        )
    return Sentence(words=tuple(word.strip() for word in words), tags=tags)

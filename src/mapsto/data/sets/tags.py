"""Sentences whose words have tags, such as names and dates: JSON Lines with two lists, or a word and its tag a line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.kinds import Dataset, Preprocessing, Samples
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapsto.data.io.tagged_words import Sentence

__all__ = ["Tags"]

_UNTAGGED = -100
"""The label of a token that is no word's first one."""
_SPLIT_SEED = 0


class Tags(Dataset):
    """Sentences with a tag for each word, BIO (``B-DATE``, ``I-DATE``, ``O``) or plain (``DATE``, ``O``).

    Of BIOES, BILOU and BMES the places in a span are read as BIO's. A word with blanks inside is read as several of one span. A sentence
    that stands there before with the same tags is left out with a warning, as is one with half of a pair of surrogates.

    Without a network the samples are sentences, their words with blanks between, and labels (N, W) the words' tag numbers, -100 behind the
    last. A network reads token ids (N, L) by its own tokenizer, and labels (N, L): each word's tag at its first token, -100 elsewhere.
    """

    version: ClassVar[int] = 2

    file: str
    """A ``.jsonl`` or ``.parquet`` file with a list of words and one of tags a row, else one of lines with a word, a tab and its tag and a
    blank line between sentences: a path, or a path inside the data folder."""
    tokens: str = "tokens"
    """The column of words."""
    tags: str = "tags"
    """The column of tags."""
    split: Literal["all", "train", "test"] = "all"
    """All sentences, or those for training or testing."""
    test_fraction: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the test sentences, always the same ones; equal sentences are in one part."""
    repeated: Literal["drop", "keep"] = "drop"
    """What becomes of a sentence that stands there before with the same tags."""

    def fingerprint(self) -> str:
        from mapsto.data.io.download import locate
        from mapsto.data.io.fingerprint import file_digest, fingerprint_of

        path = locate(self.file, what="the tagged words")
        return fingerprint_of(self, [path.suffix.lower(), file_digest(path)], without=("file",))

    def open(self) -> Samples:
        import numpy as np

        from mapsto.data.checks import classes_alike, require_some

        sentences, notes = self._sentences()
        sentences, warnings = self._chosen(sentences)
        classes = tags_in(sentences)
        numbers = {tag: number for number, tag in enumerate(classes)}
        longest = max(len(sentence.words) for sentence in sentences)
        labels = np.full((len(sentences), longest), _UNTAGGED, np.int64)
        texts = np.empty(len(sentences), object)
        for row, sentence in enumerate(sentences):
            texts[row] = " ".join(sentence.words)
            labels[row, : len(sentence.tags)] = [numbers[tag] for tag in sentence.tags]
        kept = np.flatnonzero(self._of_split(sentences))
        name = Path(self.file).name
        samples = Samples(
            inputs=texts[kept],
            labels=labels[kept],
            classes=classes,
            preprocessing=Preprocessing(kind="text"),
            warnings=tuple(f"{name}: {text}" for text in (*warnings, *classes_alike(classes), *_lone_outside(classes))),
            notes=tuple(f"{name}: {note}" for note in notes),
        )
        return require_some(samples, where=self.file)

    def read_for(self, preprocessing: Preprocessing) -> Dataset:
        """These sentences by a network's tokenizer."""
        return _ReadFor(sentences=self, preprocessing=preprocessing) if preprocessing.kind == "text" else self

    def _sentences(self) -> tuple[list[Sentence], tuple[str, ...]]:
        from mapsto.data.io.download import locate
        from mapsto.data.io.tagged_words import read_tagged

        return read_tagged(locate(self.file, what="the tagged words"), tokens=self.tokens, tags=self.tags)

    def _chosen(self, sentences: list[Sentence]) -> tuple[list[Sentence], list[str]]:
        """The sentences that can be used, and warnings of what is left out and what contradicts itself."""
        import numpy as np

        from mapsto.data.io.texts import BROKEN, left_out, seen_before
        from mapsto.errors import DataError
        from mapsto_runtime.preprocessing.texts import is_unicode

        broken = np.array([not is_unicode(" ".join((*each.words, *each.tags))) for each in sentences], np.bool_)
        keys = [(_like(each), each.tags) for each in sentences]
        again = seen_before(keys) & ~broken & (self.repeated == "drop")
        warnings = left_out(broken, BROKEN, what="sentence")
        warnings += left_out(again, "the same sentence stands before with the same tags", what="sentence")
        kept = [each for each, out in zip(sentences, (broken | again).tolist(), strict=True) if not out]
        if not kept:
            raise DataError(
                "half of a pair of surrogates stands in every sentence", where=self.file, hint="write the file again"
            )
        other = seen_before([_like(each) for each in kept]) & ~seen_before([(_like(each), each.tags) for each in kept])
        if other.any():
            shown = short(" ".join(kept[int(other.argmax())].words))
            stand = "a sentence stands" if other.sum() == 1 else f"{int(other.sum())} sentences stand"
            warnings.append(
                f"{stand} there before with other tags, so that one of them must be wrong, as '{shown}'; mend or drop them"
            )
        return kept, warnings

    def _of_split(self, sentences: list[Sentence]) -> NDArray[np.bool_]:
        import numpy as np

        from mapsto.data.stratify import share_of_each_class

        if self.split == "all":
            return np.ones(len(sentences), np.bool_)
        numbers: dict[str, int] = {}
        text = np.array([numbers.setdefault(_like(each), len(numbers)) for each in sentences], np.int64)
        total = round(self.test_fraction * len(numbers))
        return share_of_each_class(np.zeros(len(numbers), np.int64), total, _SPLIT_SEED)[text] == (self.split == "test")


def _like(sentence: Sentence) -> str:
    from mapsto.data.io.texts import like

    return like(" ".join(sentence.words))


def _lone_outside(classes: tuple[str, ...]) -> list[str]:
    """A warning of a label that was surely meant as `OUTSIDE`."""
    from mapsto_runtime.preprocessing.words import OUTSIDE

    return [
        f"the tag '{tag}' counts as a label of its own; write {OUTSIDE}, the capital letter, for a word that belongs to nothing"
        for tag in classes
        if tag == "0" or (tag == OUTSIDE.lower() and OUTSIDE not in classes)
    ]


def tags_in(sentences: list[Sentence]) -> tuple[str, ...]:
    """All tags by alphabet, ``O`` first. Raises `DataError` where there is one alone."""
    from mapsto.errors import DataError
    from mapsto_runtime.preprocessing.words import OUTSIDE

    found = sorted({tag for sentence in sentences for tag in sentence.tags}, key=lambda tag: (tag != OUTSIDE, tag))
    if len(found) < 2:
        raise DataError(
            f"every word has the tag '{found[0]}'", where="the tagged words", hint="tag words otherwise, too"
        )
    return tuple(found)


class _ReadFor(Dataset):
    """Sentences as a network's tokenizer gives them."""

    sentences: Tags
    preprocessing: Preprocessing

    def fingerprint(self) -> str:
        return self.sentences.fingerprint()

    def open(self) -> Samples:
        import numpy as np

        from mapsto.errors import DomainError
        from mapsto_runtime.preprocessing.texts import encoded, encodings
        from mapsto_runtime.preprocessing.words import first_tokens

        samples = self.sentences.open()
        known: Any = self.preprocessing
        if known.texts != 1:
            raise DomainError("the network takes pairs of texts", where="tags", hint="give one that takes a text")
        texts = samples.inputs.tolist()
        found = encoded(texts, known, self.sentences.file)
        for error in found.errors.values():
            raise error
        labels = np.full(found.ids.shape, _UNTAGGED, np.int64)
        for row, encoding in enumerate(encodings(texts, known, offsets=True)):
            words = words_between_blanks(texts[row])
            for word, token in enumerate(first_tokens(encoding.offsets, words)):
                if token >= 0:
                    labels[row, token] = samples.labels[row, word]
        said = tuple(f"{Path(self.sentences.file).name}: {note}" for note in found.notes)
        return dataclasses.replace(
            samples, inputs=found.ids, labels=labels, preprocessing=known, warnings=(*samples.warnings, *said)
        )


def words_between_blanks(text: str) -> list[tuple[int, int]]:
    """Where the words of a sentence begin and end, which have single blanks between them.

    >>> words_between_blanks("at 10 o'clock")
    [(0, 2), (3, 5), (6, 13)]
    """
    found: list[tuple[int, int]] = []
    start = 0
    for word in text.split(" "):
        found.append((start, start + len(word)))
        start += len(word) + 1
    return found

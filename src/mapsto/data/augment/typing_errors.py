"""Mistype letters, as people do: users write "crad" and "pasword", and training texts may not.

Of each word with a probability p, one letter is left out, doubled, exchanged with the next, or hit beside its key (Belinkov and Bisk,
"Synthetic and Natural Noise Both Break Neural Machine Translation", 2018). Words of fewer than three letters stay, and those
that a tokenizer does not part from a sign, as in "now?".
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.data.augment import Augmentation, Drawn
from mapsto.data.augment._base import SampleKind

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator

    from mapsto.data.augment._words import Word

__all__ = ["TypingErrors"]

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Of the usual keyboard; letters of other scripts are not hit beside their keys."""
_LEAST = 3


class TypingErrors(Augmentation):
    """Texts, some of whose words are mistyped.

    >>> TypingErrors(probability=0.2)
    TypingErrors(probability=0.2)
    """

    on: ClassVar[tuple[SampleKind, ...]] = ("texts",)
    candidates: ClassVar[tuple[dict[str, Any], ...]] = ({"probability": 0.1}, {"probability": 0.3})

    probability: float = Field(default=0.1, ge=0, le=1)
    """p, of each word to be mistyped."""

    def draw(self, drawn: Drawn, generator: Generator) -> Drawn:
        from mapsto.data.augment._words import known_words, numpy_generator, rewritten

        tokenizer, rng = known_words(drawn, name=self.name), numpy_generator(generator)

        def change(words: list[Word]) -> list[Word]:
            hit = rng.random(len(words)) < self.probability
            return [one(word) if mistyped else word for word, mistyped in zip(words, hit.tolist(), strict=True)]

        def one(word: Word) -> Word:
            letters = tokenizer.letters(word)
            if len(letters) < _LEAST or not letters.isalpha():
                return word
            return tokenizer.spelled(mistyped(letters, rng), first=tokenizer.bare(word)) or word

        return dataclasses.replace(drawn, x=rewritten(drawn.x, tokenizer, change))


def mistyped(letters: str, rng: np.random.Generator) -> str:
    """A word of three letters or more with one mistake."""
    kind, place = rng.integers(4), int(rng.integers(len(letters)))
    letter = letters[place]
    if kind == 0:
        return letters[:place] + letters[place + 1 :]
    if kind == 1:
        return letters[:place] + letter + letters[place:]
    if kind == 2:
        place = min(place, len(letters) - 2)
        return letters[:place] + letters[place + 1] + letters[place] + letters[place + 2 :]
    return letters[:place] + _beside(letter, rng) + letters[place + 1 :]


def _beside(letter: str, rng: np.random.Generator) -> str:
    row = next((row for row in _ROWS if letter in row), letter)
    place = row.index(letter)
    near = row[max(place - 1, 0) : place] + row[place + 1 : place + 2]
    return near[int(rng.integers(len(near)))] if near else letter

"""How operations on texts get at words: samples are token ids, and the tokenizer that made them travels with their preprocessing.

Whole words are moved and dropped by the table of continuations (``##ing`` goes on with the word before it), which needs no text; only a
first word, which some tokenizers write without a space before it, is spelled anew where it moves. What edits letters writes a word's
pieces as letters, edits them, and has the tokenizer read that one word again; a text that would outgrow the batch stays as it was. Special
tokens, such as the ends of a text, stay in their places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mapsto.data.text.word_pieces import WordPieces, word_pieces
from mapsto.errors import DomainError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from mapsto.data.augment._base import Drawn
    from mapsto.kinds import Preprocessing, Samples

__all__ = ["TextWords", "Word", "known_words", "numpy_generator", "padded", "rewritten", "text_words", "words_of"]

Word = tuple[int, ...]
"""The ids of a word's pieces."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TextWords:
    """A tokenizer, as operations on words need it."""

    pieces: WordPieces
    """Which ids go on with a word, and which are of none."""
    padding: int
    digest: str
    """What a signature calls the tokenizer by."""
    tokenizer: Any = field(repr=False)
    """Of the library tokenizers, without truncation."""
    _spelled: dict[tuple[str, bool], Word] = field(default_factory=dict, repr=False)

    def letters(self, word: Word) -> str:
        """A word as it is written, without the space before it."""
        if self.pieces.space:
            return str(self.tokenizer.decode(list(word), skip_special_tokens=False)).strip()
        tokens = [str(self.tokenizer.id_to_token(each)) for each in word]
        return "".join(token.removeprefix(self.pieces.prefix) if place else token for place, token in enumerate(tokens))

    def spelled(self, letters: str, *, first: bool = False) -> Word:
        """The ids of what is written so, after a space or at the beginning; empty where the tokenizer does not know it as one word."""
        key = (letters, first)
        if key not in self._spelled:
            written = (letters,) if first or not self.pieces.space else (f" {letters}", letters)
            tried = [self.tokenizer.encode(each, add_special_tokens=False).ids for each in written]
            self._spelled[key] = next((tuple(ids) for ids in tried if self._is_word(ids, first)), ())
        return self._spelled[key]

    def bare(self, word: Word) -> bool:
        """Whether it is written as a first word that has no space before it."""
        return bool(self.pieces.space) and bool(self.pieces.continues[word[0]])

    def placed(self, words: list[Word], *, bare: bool) -> list[Word]:
        """Words of a text with the first of them bare, and the others not; empty where one cannot be spelled so."""
        found = [
            self.spelled(self.letters(word)) if place and self.bare(word) else word for place, word in enumerate(words)
        ]
        if bare and found and not self.bare(found[0]):
            found[0] = self.spelled(self.letters(found[0]), first=True) or found[0]
        return found if all(found) else []

    def _is_word(self, ids: list[int], first: bool) -> bool:
        if not ids or any(self.pieces.special[ids]):
            return False
        going_on = self.pieces.continues[ids]
        return not self.pieces.space or bool(going_on[1:].all() and (first or not going_on[0]))


def words_of(samples: Samples) -> TextWords | None:
    """Of opened samples that a network's tokenizer has read; None for others."""
    return text_words(samples.preprocessing)


def text_words(preprocessing: Preprocessing) -> TextWords | None:
    """Of a preprocessing that holds a tokenizer; None without."""
    if preprocessing.kind != "text" or not preprocessing.tokenizer_json:
        return None
    tokenizer, digest = preprocessing.tokenizer_json, preprocessing.tokenizer
    return _opened(tokenizer, preprocessing.padding, digest, word_pieces(preprocessing))


@lru_cache(8)
def _opened(tokenizer_json: bytes, padding: int, digest: str, pieces: WordPieces) -> TextWords:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_str(tokenizer_json.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextWords(pieces=pieces, padding=padding, digest=digest, tokenizer=tokenizer)


def known_words(drawn: Drawn, *, name: str) -> TextWords:
    """Of a batch of texts. Raises `DomainError` where no tokenizer came with it."""
    if drawn.words is None:
        raise DomainError(
            f"{name} changes words, and these token ids came without their tokenizer",
            where=f"augment: {name}",
            hint="give texts (datasets.text) to a network that carries its tokenizer, as networks.minilm does",
        )
    return drawn.words


def numpy_generator(generator: Generator) -> np.random.Generator:
    """A NumPy generator whose draws come from torch's."""
    import torch

    return np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator).item()))


def rewritten(ids: Tensor, words: TextWords, change: Callable[[list[Word]], list[Word]]) -> Tensor:
    """Texts (..., L) with each one's words changed; a text without words, or one that would outgrow L, stays."""
    import torch

    rows = ids.cpu().numpy().reshape(-1, ids.shape[-1])
    numbers = words.pieces.numbers(rows)
    found = rows.copy()
    for row, own, place in zip(rows, numbers, found, strict=True):
        inside = np.flatnonzero(own >= 0)
        if not len(inside):
            continue
        begin, end = int(inside[0]), int(inside[-1]) + 1
        count = int(own.max()) + 1
        before: list[Word] = [tuple(row[own == number].tolist()) for number in range(count)]
        made = [piece for word in words.placed(change(before), bare=words.bare(before[0])) for piece in word]
        rest = row[end:]
        rest = rest[rest != words.padding]
        whole = [*row[:begin].tolist(), *made, *rest.tolist()]
        if (own[begin:end] >= 0).all() and made and len(whole) <= len(row):
            place[:] = words.padding
            place[: len(whole)] = whole
    return torch.as_tensor(found, device=ids.device).view(ids.shape)


def padded(ids: NDArray[np.int64], length: int, padding: int) -> NDArray[np.int64]:
    """Texts (N, M) of a batch of length L, (N, L)."""
    return np.pad(ids, ((0, 0), (0, length - ids.shape[1])), constant_values=padding)

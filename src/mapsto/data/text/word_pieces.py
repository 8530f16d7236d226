"""Words of token ids: which tokens belong together, which are special, and drawing words to mask or to drop.

A WordPiece tokenizer writes the later pieces of a word with ``##`` before them; those of bytes (``Ġ``) and of SentencePiece (``▁``) mark
the pieces that begin a word, which holds the signs written to it. Pieces of one word are masked, dropped or replaced together (whole word
masking: Cui et al., "Pre-Training with Whole Word Masking for Chinese BERT", 2021).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.errors import DomainError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Preprocessing

__all__ = ["WordPieces", "drawn_words", "kept_in_order", "require_mask", "word_pieces"]


@dataclass(frozen=True, kw_only=True, eq=False)
class WordPieces:
    """What a tokenizer's ids are."""

    continues: NDArray[np.bool_]
    """Whether an id goes on with the word before it, (V,)."""
    special: NDArray[np.bool_]
    """Whether an id stands for no word, such as padding and separators, (V,)."""
    mask: int | None
    """The id of the mask; None where there is none."""
    prefix: str = "##"
    """What the tokenizer writes before a piece that goes on with a word."""
    space: str = ""
    """What it writes for the space before a word; empty where it marks the pieces that go on instead."""

    def numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of each token of texts (N, L) the number of its word in its text, from 0; −1 of special ones.

        >>> pieces = WordPieces(continues=np.array([0, 0, 0, 1], bool), special=np.array([1, 0, 0, 0], bool), mask=None)
        >>> pieces.numbers(np.array([[0, 1, 2, 3, 1, 0]])).tolist()
        [[-1, 0, 1, 1, 2, -1]]
        """
        plain = ~self.special[ids]
        begins = plain & ~self.continues[ids]
        begins[:, 1:] |= plain[:, 1:] & ~plain[:, :-1]
        begins[:, 0] |= plain[:, 0]
        return np.where(plain, begins.cumsum(1) - 1, -1)


def word_pieces(preprocessing: Preprocessing) -> WordPieces:
    """Of a network's tokenizer. Raises `DomainError` where it marks neither the beginnings of words nor what goes on with one."""
    return _word_pieces(preprocessing.tokenizer_json, preprocessing.padding)


@lru_cache(8)
def _word_pieces(tokenizer_json: bytes, padding: int) -> WordPieces:
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_str(tokenizer_json.decode())
    known: dict[str, int] = tokenizer.get_vocab()
    size = max([padding, *known.values()]) + 1
    tree: dict[str, Any] = json.loads(tokenizer_json)
    before, space = str(tree["model"].get("continuing_subword_prefix") or "##"), _space(tree)
    continues, special = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    for word, number in known.items():
        continues[number] = not word.startswith(space) if space else word.startswith(before) and word != before
    special[padding] = True
    ends = tokenizer.encode("").ids
    listed = [number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special]
    names = [
        known[name] for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<pad>") if name in known
    ]
    special[[*ends, *listed, *names]] = True
    mask = next((known[name] for name in ("[MASK]", "<mask>") if name in known), None)
    continues &= ~special
    return WordPieces(continues=continues, special=special, mask=mask, prefix=before, space=space)


def _space(tree: dict[str, Any]) -> str:
    """What a tokenizer writes for the space before a word; empty where it does not."""
    model: dict[str, Any] = tree["model"]
    kind = str(model.get("type"))
    parts = [*_parts(tree.get("normalizer")), *_parts(tree.get("pre_tokenizer"))]
    if not model.get("end_of_word_suffix"):
        if any(part.get("type") == "ByteLevel" for part in parts):
            return "Ġ"
        found = (
            "▁"
            if any("▁" in (part.get("replacement"), part.get("content"), part.get("prepend")) for part in parts)
            else ""
        )
        if found or kind in ("WordPiece", "WordLevel") or model.get("continuing_subword_prefix"):
            return found
    raise DomainError(
        f"of this tokenizer, of kind {kind}, it is not known where words begin",
        where="the tokenizer",
        hint="operations on words take tokenizers of WordPiece, of bytes (Ġ) and of SentencePiece (▁)",
    )


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer and what it is composed of."""
    if isinstance(tree, dict):
        part = cast("dict[str, Any]", tree)
        yield part
        for name in ("normalizers", "pretokenizers"):
            for each in part.get(name) or ():
                yield from _parts(each)


def require_mask(pieces: WordPieces, *, where: str) -> int:
    """The id of the mask. Raises `DomainError` where the tokenizer has none."""
    if pieces.mask is None:
        raise DomainError(
            "the tokenizer has no [MASK]", where=where, hint="use train.tsdae or train.simcse, which need none"
        )
    return pieces.mask


def drawn_words(numbers: NDArray[np.int64], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which tokens of texts (N, L) are of drawn words: each word by its own with probability `share`, and one of each text at least.

    `numbers` are those of the words, −1 where there is none; those of the tokens themselves draw single tokens.
    """
    count = int(numbers.max(initial=0)) + 1
    there = np.zeros((len(numbers), count + 1), np.bool_)
    np.put_along_axis(there, numbers, True, 1)  # −1 is the last column
    there = there[:, :count]
    scores = np.where(there, rng.random((len(numbers), count)), 2.0)
    drawn = scores < np.maximum(share, scores.min(1, keepdims=True) + 1e-12)
    drawn = np.concatenate([drawn & there, np.zeros((len(numbers), 1), np.bool_)], 1)
    return np.take_along_axis(drawn, numbers, 1)


def kept_in_order(ids: NDArray[np.int64], keep: NDArray[np.bool_], padding: int) -> NDArray[np.int64]:
    """Texts (N, L) without the tokens that are not kept: the others move up, and padding fills the end, (N, M).

    >>> kept_in_order(np.array([[5, 6, 7], [5, 6, 7]]), np.array([[True, False, True], [True, False, False]]), 0).tolist()
    [[5, 7], [5, 0]]
    """
    order = np.argsort(~keep, axis=1, kind="stable")
    moved = np.take_along_axis(np.where(keep, ids, padding), order, 1)
    return moved[:, : max(int(keep.sum(1).max(initial=0)), 1)]

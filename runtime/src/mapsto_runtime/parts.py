"""What a sample consists of to a reader: cells of an image, words of texts, columns of a row; and the sample without some of them.

What takes a part's place says nothing of the class: in an image the image's own mean colour (or a blurred copy), in a row what stands for
a missing value of that column; a word is left out and the text read again by the tokenizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mapsto_runtime.errors import DomainError
from mapsto_runtime.preprocessing.texts import Text, encodings, joined, tokenizer_of
from mapsto_runtime.preprocessing.words import first_tokens, words_of
from mapsto_runtime.signature import Column, Preprocessing, Signature

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Baseline", "Cells", "Columns", "Parts", "Tokens", "Words", "parts_of", "special_ids"]

Baseline: TypeAlias = Literal["mean", "blurred", "black"]
"""What takes the place of a part of an image: the image's own mean colour, a blurred copy of it, or 0 before normalisation."""
_CELLS = 16
"""Cells along the longer side of an image, at most."""
_WINDOW = 3
"""Cells along a window that is hidden at once."""
_MOST_NUMBERS = 4096


class Parts(ABC):
    """One sample as parts that can be taken out of it."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What the parts are called, in the order of the sample: words, columns; of cells their row and column, counted from 0."""

    @abstractmethod
    def without(self, gone: NDArray[np.bool_]) -> NDArray[Any]:
        """The sample as often as there are rows in `gone` (M, parts), each without the parts that are marked: inputs (M, ...)."""

    def windows(self) -> NDArray[np.bool_]:
        """What is hidden at once to score parts, shape (windows, parts): by default each part by itself."""
        import numpy as np

        return np.eye(len(self.names), dtype=np.bool_)

    def of_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Values of the numbers (or tokens) that the network takes, summed over each part: shape (parts,)."""
        raise DomainError("its inputs belong to no parts", where="the explanation", hint="explain it by occlusion")


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells(Parts):
    """An image, or another array whose last two axes are a plane, as square cells.

    >>> import numpy as np
    >>> cells = Cells(sample=np.arange(16.0).reshape(1, 4, 4), mean=(0.0,), std=(1.0,))
    >>> len(cells.names), cells.without(np.arange(16)[None] == 5)[0, 0, 1].tolist()
    (16, [4.0, 7.5, 6.0, 7.0])
    """

    sample: NDArray[Any]
    """(C, H, W), as the network takes it."""
    mean: tuple[float, ...]
    """What the network's preprocessing subtracts from pixels of 0 to 1, for each channel or for all."""
    std: tuple[float, ...]
    baseline: Baseline = "mean"
    _kept: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def size(self) -> int:
        """Pixels along a cell."""
        return max(1, -(-max(self.sample.shape[-2:]) // _CELLS))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells; those at the edges may be smaller."""
        height, width = self.sample.shape[-2:]
        return -(-height // self.size), -(-width // self.size)

    @property
    def names(self) -> tuple[str, ...]:
        rows, columns = self.grid
        return tuple(f"{row},{column}" for row in range(rows) for column in range(columns))

    def without(self, gone: NDArray[np.bool_]) -> NDArray[Any]:
        import numpy as np

        pixels = self.spread(gone.reshape(len(gone), *self.grid))
        return np.where(pixels[:, None], self.hidden, self.sample)

    def windows(self) -> NDArray[np.bool_]:
        """Squares of 3 × 3 cells around each: one cell alone is often too small to change an answer (Zeiler and Fergus, 2014)."""
        import numpy as np

        rows, columns = self.grid
        reach = _WINDOW // 2 if min(self.grid) >= 2 * _WINDOW else 0
        row, column = np.divmod(np.arange(rows * columns), columns)
        near = np.abs(row[:, None] - row) <= reach
        return near & (np.abs(column[:, None] - column) <= reach)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of cells (..., rows, columns) for each of their pixels, (..., H, W)."""
        height, width = self.sample.shape[-2:]
        return values.repeat(self.size, -2).repeat(self.size, -1)[..., :height, :width]

    def of_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        import numpy as np

        rows, columns = self.grid
        plane = values.reshape(-1, *self.sample.shape[-2:]).sum(0)
        whole = np.zeros((rows * self.size, columns * self.size))
        whole[: plane.shape[0], : plane.shape[1]] = plane
        return whole.reshape(rows, self.size, columns, self.size).sum((1, 3)).ravel()

    @property
    def hidden(self) -> NDArray[Any]:
        """What stands where something is hidden, (C, H, W)."""
        import numpy as np

        if "hidden" not in self._kept:
            if self.baseline == "blurred":
                found = _blurred(self.sample)
            elif self.baseline == "black":
                dark = np.array([-mean / std for mean, std in zip(self.mean, self.std, strict=True)])
                found = np.broadcast_to(dark[:, None, None], self.sample.shape)
            else:
                found = np.broadcast_to(self.sample.mean((-2, -1), keepdims=True), self.sample.shape)
            self._kept["hidden"] = found.astype(self.sample.dtype)
        return self._kept["hidden"]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """What the network sees, as colours (H, W, 3); of an array that is no image its values from least to largest."""
        import numpy as np

        channels = len(self.sample)
        if len(self.mean) in (1, channels) and channels in (1, 3):
            mean, std = (np.asarray(each, np.float64).reshape(-1, 1, 1) for each in (self.mean, self.std))
            shades = (self.sample * std + mean).clip(0, 1)
        else:
            plane = self.sample.mean(0, keepdims=True, dtype=np.float64)
            shades = (plane - plane.min()) / (np.ptp(plane) or 1.0)
        return np.broadcast_to((255 * shades).round().astype(np.uint8).transpose(1, 2, 0), (*shades.shape[1:], 3))


def _blurred(sample: NDArray[Any]) -> NDArray[Any]:
    """Means of a square around each pixel, twice: a third of the side wide, so that no shape is left."""
    import numpy as np

    found = sample.astype(np.float64)
    for axis in (-2, -1, -2, -1):
        length = sample.shape[axis]
        reach = max(1, length // 6)
        padded = np.concatenate([found.take([0] * (reach + 1), axis), found, found.take([-1] * reach, axis)], axis)
        sums = padded.cumsum(axis)
        wide = 2 * reach + 1
        found = (sums.take(range(wide, wide + length), axis) - sums.take(range(length), axis)) / wide
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Words(Parts):
    """A text, or a pair of them, as words: those that the network reads, so none behind its longest length."""

    text: Text
    before: Preprocessing
    _kept: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._pieces[number][start:end] for number, start, end, _ in self._words)

    @property
    def _pieces(self) -> tuple[str, ...]:
        return (self.text,) if isinstance(self.text, str) else self.text

    @property
    def _words(self) -> list[tuple[int, int, int, int]]:
        """Of each word: which text, where it begins and ends there, and its first token."""
        if "words" not in self._kept:
            found: list[tuple[int, int, int, int]] = []
            for number, (piece, encoding) in enumerate(zip(self._pieces, self._encodings, strict=True)):
                spans = words_of(piece)
                tokens = first_tokens(encoding.offsets, spans)
                found += [(number, *span, token) for span, token in zip(spans, tokens, strict=True) if token >= 0]
            self._kept["words"] = found
        return self._kept["words"]

    @property
    def _encodings(self) -> list[Any]:
        if "encodings" not in self._kept:
            self._kept["encodings"] = encodings(self._pieces, self.before, offsets=True)
        return self._kept["encodings"]

    def without(self, gone: NDArray[np.bool_]) -> NDArray[Any]:
        import numpy as np

        rows: list[NDArray[Any]] = []
        for row in gone:
            pieces = [
                "".join(
                    piece[start:end]
                    for start, end in _rest(
                        len(piece),
                        [word[1:3] for word, out in zip(self._words, row, strict=True) if out and word[0] == number],
                    )
                )
                for number, piece in enumerate(self._pieces)
            ]
            ids = [np.array([each.ids], np.int64) for each in encodings(pieces, self.before)]
            together = joined(ids, self.before.padding)
            rows.append(together if self.before.texts == 1 else together[None])
        found = joined(rows, self.before.padding)
        # A tokenizer that marks no ends leaves nothing of a text without words, and no network takes that.
        return found if found.shape[-1] else np.full((*found.shape[:-1], 1), self.before.padding, found.dtype)

    def of_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of tokens (L,), or of pairs (2, L): a token counts for the word that it begins or continues."""
        import numpy as np

        found = np.zeros(len(self._words))
        of_texts = values.reshape(len(self._pieces), -1)
        for place, (number, start, end, _) in enumerate(self._words):
            offsets = self._encodings[number].offsets
            own = [
                token for token, (first, last) in enumerate(offsets) if first < end and last > start and last > first
            ]
            found[place] = of_texts[number, own].sum()
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens(Parts):
    """A text of which the ids of its tokens are known, as these tokens; those that begin and end a text are none of them."""

    ids: NDArray[Any]
    """(L,), or of pairs (2, L), filled up with the padding id."""
    before: Preprocessing

    @property
    def names(self) -> tuple[str, ...]:
        tokenizer = tokenizer_of(self.before)
        return tuple(str(tokenizer.id_to_token(number)) for number in self.ids[self._own].tolist())

    @property
    def _own(self) -> NDArray[np.bool_]:
        import numpy as np

        return ~np.isin(self.ids, list(special_ids(self.before)))

    def without(self, gone: NDArray[np.bool_]) -> NDArray[Any]:
        import numpy as np

        own = self._own
        found = np.full((len(gone), *self.ids.shape), self.before.padding, np.int64)
        length = self.ids.shape[-1]
        for row, out in zip(found, gone, strict=True):
            stays = np.ones(self.ids.shape, np.bool_)
            stays[own] = ~out
            texts = zip(row.reshape(-1, length), self.ids.reshape(-1, length), stays.reshape(-1, length), strict=True)
            for place, ids, kept in texts:  # the first is a view of the row
                place[: int(kept.sum())] = ids[kept]
        return found

    def of_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return values[self._own].astype("float64")


def special_ids(before: Preprocessing) -> set[int]:
    """Ids that stand for no part of a text: padding, and what begins and ends every text."""
    return {before.padding, *tokenizer_of(before).encode("").ids}


def _rest(length: int, gone: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is left of 0 to length without some spans, in order."""
    starts, ends = [0, *(end for _, end in gone)], [*(start for start, _ in gone), length]
    return list(zip(starts, ends, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns(Parts):
    """A row of a table as the columns that a user knows, whatever numbers they become; or of plain numbers each number.

    >>> import numpy as np
    >>> colour = Column(name="colour", type="words", categories=("blue", "red"))
    >>> row = Columns(row=np.array([1.5, 0.0, 1.0]), columns=(Column(name="size", mean=2.0, fill=(2.0,)), colour))
    >>> row.without(np.eye(2, dtype=bool)).tolist(), row.of_inputs(np.array([1.0, 2.0, 3.0])).tolist()
    ([[0.0, 0.0, 1.0], [1.5, 0.5, 0.5]], [1.0, 5.0])
    >>> row.values
    ('3.5', 'red')
    """

    row: NDArray[Any]
    """(D,), encoded."""
    columns: tuple[Column, ...] = ()
    """Empty: each number is a part, and 0 takes its place."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns) or tuple(map(str, range(len(self.row))))

    @property
    def values(self) -> tuple[str, ...]:
        """What the row holds in each column, as the table has it."""
        import numpy as np

        if not self.columns:
            return tuple(f"{number:.5g}" for number in self.row.tolist())
        encoded = np.split(self.row, np.cumsum(self._widths[:-1]))
        return tuple(_value(column, numbers) for column, numbers in zip(self.columns, encoded, strict=True))

    @property
    def hidden(self) -> NDArray[Any]:
        """What stands where something is hidden, (D,)."""
        import numpy as np

        parts = [_absent(column) for column in self.columns]
        return np.concatenate(parts).astype(self.row.dtype) if parts else np.zeros_like(self.row)

    def without(self, gone: NDArray[np.bool_]) -> NDArray[Any]:
        import numpy as np

        return np.where(gone.repeat(self._widths, axis=1), self.hidden, self.row)

    def of_inputs(self, values: NDArray[Any]) -> NDArray[np.float64]:
        import numpy as np

        return np.add.reduceat(values.astype(np.float64), np.cumsum([0, *self._widths[:-1]]))

    @property
    def _widths(self) -> list[int]:
        return [column.width for column in self.columns] or [1] * len(self.row)


def _value(column: Column, numbers: NDArray[Any]) -> str:
    """What the numbers of a column were made from; of numbers that are filled a gap and the mean itself cannot be told apart.

    >>> import numpy as np
    >>> colour = Column(name="colour", type="words", categories=("blue", "red"), fill=(0.5, 0.5))
    >>> _value(colour, np.array([0.0, 1.0])), _value(colour, np.array([0.5, 0.5]))
    ('red', 'missing')
    >>> _value(Column(name="size", mean=2.0, fill=(2.0,)), np.array([0.0]))
    '2, its mean, or missing'
    """
    import numpy as np

    absent = np.allclose(numbers, _absent(column).astype(numbers.dtype), rtol=1e-6, atol=1e-7, equal_nan=True)
    raw = numbers.astype(np.float64) * column.std + column.mean
    if np.isnan(raw).any():
        return "missing"
    if column.type == "numbers":
        return f"{raw[0]:.5g}, its mean, or missing" if absent and column.fill else f"{raw[0]:.5g}"
    place = int(raw.argmax()) if column.encode == "one_hot" else round(float(raw[0]))
    known = np.isclose(raw.max(), 1) if column.encode == "one_hot" else np.isclose(raw[0], place, atol=1e-3)
    if not known or not 0 <= place < len(column.categories):
        return "missing"
    return "another word" if column.others and place == len(column.categories) - 1 else column.categories[place]


def _absent(column: Column) -> NDArray[Any]:
    """What the column becomes where its value is missing; with neither a fill nor a mark its mean, of words all categories alike."""
    import numpy as np

    if column.missing == "marked":
        return np.full(column.width, np.nan)
    one_hot = column.type == "words" and column.encode == "one_hot"
    usual = column.fill or (1 / column.width if one_hot else column.mean,) * column.width
    return (np.array(usual, np.float64) - column.mean) / column.std


def parts_of(sample: NDArray[Any], signature: Signature, *, text: Text = "", baseline: Baseline = "mean") -> Parts:
    """The parts of a prepared sample of shape (...), without the batch.

    Parameters
    ----------
    sample
        As preprocessing makes it.
    text
        Of a text what was given; ids alone are explained token by token.
    baseline
        What stands where a part of an image is hidden.

    Raises
    ------
    DomainError
        The sample has no parts that a reader would know, as an array of one axis with very many numbers has none.
    """
    before = signature.preprocessing
    if before.kind == "text":
        return Words(text=text, before=before) if text else Tokens(ids=sample, before=before)
    if before.kind == "image":
        return Cells(sample=sample, mean=before.mean, std=before.std, baseline=baseline)
    if before.columns:
        return Columns(row=sample, columns=before.columns)
    if sample.ndim >= 2:
        plane = sample.reshape(-1, *sample.shape[-2:])
        return Cells(sample=plane, mean=(0.0,) * len(plane), std=(1.0,) * len(plane), baseline=baseline)
    if len(sample) > _MOST_NUMBERS:
        raise DomainError(
            f"{len(sample)} numbers in a row are too many to score one by one",
            where="the explanation",
            hint=f"give samples of at most {_MOST_NUMBERS} numbers",
        )
    return Columns(row=sample)

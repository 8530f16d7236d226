"""From texts to token ids by the tokenizer that travels with the network, and batches of texts of like length.

The tokenizer is a ``tokenizer.json`` as the library tokenizers writes it; prediction needs that library and no other (extra `text`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from mapsto_runtime.errors import DataError, MissingExtra, StoreError
from mapsto_runtime.shown import few, short
from mapsto_runtime.signature import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ASSET",
    "Encoded",
    "Text",
    "batches",
    "by_length",
    "digest",
    "encoded",
    "encodings",
    "is_unicode",
    "joined",
    "one_length",
    "tokenizer_of",
    "trimmed",
]

ASSET = "tokenizer.json"
"""The tokenizer's name among a network's assets and a package's files."""
Text: TypeAlias = "str | tuple[str, ...]"
"""A text, or a pair of them."""

_LETTERS_A_TOKEN = 100
"""More than any tokenizer puts into its tokens on average."""
_UNKNOWN = 0.5
"""From this share of unknown tokens on a text counts as one of another script."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Texts as token ids."""

    ids: NDArray[np.int64]
    """(M, L), or of pairs (M, 2, L), behind a text's own tokens filled with the padding id; L is that of the longest."""
    numbers: tuple[int, ...]
    """Of each, its place among the texts that were given."""
    errors: dict[int, DataError]
    """Texts that cannot be used → why."""
    notes: tuple[str, ...]
    """What was cut off, and what the tokenizer hardly knows."""


def tokenizer_of(preprocessing: Preprocessing) -> Any:
    """The tokenizer, which cuts texts off at the preprocessing's length.

    Raises
    ------
    MissingExtra
        The library tokenizers is not installed.
    StoreError
        The tokenizer is missing, or none.
    """
    if not preprocessing.tokenizer_json:
        raise StoreError(
            "its tokenizer is missing", where="the network", hint="load the network with its assets, or export it again"
        )
    return _opened(preprocessing.tokenizer_json, preprocessing.length)


@lru_cache(8)
def _opened(content: bytes, length: int) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "text", where="a text") from error
    try:
        tokenizer: Any = Tokenizer.from_str(content.decode())
    except Exception as error:  # tokenizers raises plain Exception
        raise StoreError(
            f"no tokenizer of the library tokenizers ({error})", where=ASSET, hint="export the package again"
        ) from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer


def digest(content: bytes) -> str:
    """What a signature calls a tokenizer by."""
    return hashlib.sha256(content).hexdigest()


def encodings(texts: Sequence[str], preprocessing: Preprocessing, *, offsets: bool = False) -> list[Any]:
    """What the tokenizer gives for each text, cut off at the preprocessing's length; with `offsets` where tokens begin and end, too.

    The library makes all tokens of a text before it cuts it off, 130 MB for each MB of it. Of a text that is far longer than what is read
    its beginning is given; where that makes too few tokens, as a beginning of blanks does, the whole.
    """
    tokenizer = tokenizer_of(preprocessing)
    most = _LETTERS_A_TOKEN * preprocessing.length

    def run(own: list[str]) -> list[Any]:
        if len(own) == 1:
            return [tokenizer.encode(own[0])]
        return tokenizer.encode_batch(own) if offsets else tokenizer.encode_batch_fast(own)

    found = run([_beginning(text, most) for text in texts])
    whole = [place for place, text in enumerate(texts) if len(text) > most and not found[place].overflowing]
    for place, encoding in zip(whole, run([texts[place] for place in whole]), strict=True):
        found[place] = encoding
    return found


def _beginning(text: str, most: int) -> str:
    """The first words of at most so many letters together."""
    if len(text) <= most:
        return text
    blank = text.rfind(" ", most // 2, most)
    return text[: blank if blank > 0 else most]


def encoded(texts: Sequence[Text], preprocessing: Preprocessing, name: str) -> Encoded:
    """The token ids of texts, or of pairs of texts.

    An empty text is among the errors. Raises `MissingExtra` and `StoreError` as `tokenizer_of`, `DataError` for what is no text.
    """
    import numpy as np

    tokenizer = tokenizer_of(preprocessing)
    parts = preprocessing.texts
    errors: dict[int, DataError] = {}
    kept: list[tuple[str, ...]] = []
    numbers: list[int] = []
    for number, given in enumerate(texts):
        pieces = (given,) if isinstance(given, str) else tuple(given)
        wrong = _wrong(pieces, parts)
        if wrong:
            place = f"text {number + 1} " if len(texts) > 1 else "the input "
            hint = "give a text" if parts == 1 else f"give {parts} texts a sample, with a tab between them"
            errors[number] = DataError(f"{place}{wrong}", where=name, hint=hint)
        else:
            kept.append(pieces)
            numbers.append(number)
    flat = [piece for pieces in kept for piece in pieces]
    found = encodings(flat, preprocessing)
    rows = [encoding.ids for encoding in found]
    length = max(map(len, rows), default=1)
    ids = np.full((len(rows), length), preprocessing.padding, np.int64)
    for row, own in zip(ids, rows, strict=True):
        row[: len(own)] = own
    cut = sorted({numbers[place // parts] for place, encoding in enumerate(found) if encoding.overflowing})
    notes: list[str] = []
    if cut:
        what = f"{len(cut)} of {len(texts)} texts are" if len(texts) > 1 else "the text is"
        which = f" (the first is number {cut[0] + 1})" if len(texts) > 1 else ""
        notes.append(f"{what} longer than {preprocessing.length} tokens, and what comes after is not read{which}")
    strange = _strange(ids, tokenizer, preprocessing)
    if len(strange):
        shown = few([f"'{short(flat[place])}'" for place in strange.tolist()], 3)
        notes.append(
            f"of {len(strange)} of {len(flat)} texts the tokenizer knows less than half of the tokens, as of another script: {shown}"
        )
    return Encoded(
        ids=ids if parts == 1 else ids.reshape(len(kept), parts, length),
        numbers=tuple(numbers),
        errors=errors,
        notes=tuple(notes),
    )


def _wrong(pieces: tuple[Any, ...], parts: int) -> str:
    if len(pieces) != parts:
        if parts == 1:
            return "is a pair, not one text"
        return f"is {len(pieces)} text{'' if len(pieces) == 1 else 's'}, and the network takes {parts}"
    for piece in pieces:
        if not isinstance(piece, str):
            return f"is a {type(piece).__name__}, not a text" if piece is not None else "is missing"
        if not piece.strip():
            return "is empty"
        if not is_unicode(piece):
            return "is no text: it has half of a pair of surrogates"
    return ""


def is_unicode(text: str) -> bool:
    """Whether it can be written: False where half of a pair of surrogates stands in it, as JSON's escapes can have it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _strange(ids: NDArray[np.int64], tokenizer: Any, preprocessing: Preprocessing) -> NDArray[np.int64]:
    """Places of texts most of whose tokens are unknown."""
    import numpy as np

    unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "[UNK]")
    if unknown is None or not len(ids):
        return np.zeros(0, np.int64)
    own = (ids != preprocessing.padding).sum(1) - tokenizer.num_special_tokens_to_add(False)
    return np.flatnonzero((ids == unknown).sum(1) > _UNKNOWN * np.maximum(own, 1))


def trimmed(ids: NDArray[Any], padding: int) -> NDArray[Any]:
    """Without what is padding at the end of every text; one token stays."""
    import numpy as np

    used = np.flatnonzero((ids != padding).reshape(-1, ids.shape[-1]).any(0))
    return ids[..., : int(used[-1]) + 1 if len(used) else 1]


def one_length(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Outputs of batches one after another; where they are of tokens (N, K, L), filled with 0 behind the last of each.

    >>> import numpy as np
    >>> one_length([np.ones((1, 1, 1)), np.ones((1, 1, 2))]).tolist()
    [[[1.0, 0.0]], [[1.0, 1.0]]]
    """
    import numpy as np

    if parts[0].ndim < 3:
        return np.concatenate(parts)
    length = max(part.shape[-1] for part in parts)
    return np.concatenate([np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, length - part.shape[-1])]) for part in parts])


def joined(parts: Sequence[NDArray[Any]], padding: int) -> NDArray[Any]:
    """Token ids one after another, padded to the longest.

    >>> import numpy as np
    >>> joined([np.array([[5, 1]]), np.array([[7, 3, 4]])], 0).tolist()
    [[5, 1, 0], [7, 3, 4]]
    """
    import numpy as np

    length = max((part.shape[-1] for part in parts), default=1)
    wide = [
        np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, length - part.shape[-1])], constant_values=padding)
        for part in parts
    ]
    return np.concatenate(wide)


def batches(ids: NDArray[Any], padding: int, size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Batches of texts of like length: their places, and their ids without the padding that none of them needs.

    Padding texts to the longest of a random batch would double the work.

    >>> import numpy as np
    >>> ids = np.array([[5, 1, 2], [5, 0, 0], [7, 3, 4]])
    >>> [(places.tolist(), part.tolist()) for places, part in batches(ids, 0, 2)]
    [([1, 0], [[5, 0, 0], [5, 1, 2]]), ([2], [[7, 3, 4]])]
    """
    import numpy as np

    lengths = (ids != padding).reshape(len(ids), -1, ids.shape[-1]).sum(-1).max(-1)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(ids), size):
        places = order[start : start + size]
        yield places, trimmed(ids[places], padding)


def by_length(
    run: Callable[[NDArray[Any]], NDArray[Any]],
    ids: NDArray[Any],
    padding: int,
    size: int,
    *,
    track: Callable[[list[Any]], Iterable[Any]] = iter,
) -> NDArray[Any]:
    """What `run` gives for texts (N, L), in `batches`, in the order in which the texts stand; `track` goes through the batches.

    >>> import numpy as np
    >>> by_length(lambda part: part.sum(1), np.array([[5, 1, 2], [5, 0, 0], [7, 3, 4]]), 0, 2).tolist()
    [8, 5, 14]
    """
    import numpy as np

    parts = list(batches(ids, padding, size))
    found = one_length([run(part) for _, part in track(parts)])
    return found[np.argsort(np.concatenate([places for places, _ in parts]))]

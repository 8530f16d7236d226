"""The tokenizer of a folder saved by transformers, read as transformers reads it, and whether it fits the weights."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapsto.errors import DataError, MissingExtra
from mapsto.nn.networks.hf import without_log
from mapsto_runtime.preprocessing.texts import ASSET

__all__ = ["padding_of", "tokenizer_in"]

_PROBES = (
    "Card LOST",
    "  Zürich café, naïve 你好 ",
    "don't 2024\tx\u200b\u00ad",
    "ＡＢＣ ﬁ İstanbul ß…",
    "a",
)
"""What tokenizers read differently: case, accents, space, widths."""
_NAMED = re.compile(r"\[[^\s\[\]]+\]|<[^\s<>]+>")
"""As special tokens are written, where the tokenizer lists none."""


def tokenizer_in(folder: Path, *, lowercase: bool = False, note: Callable[[str], None] | None = None) -> bytes:
    """The tokenizer of a folder as ``tokenizer.json``, without padding or a length of its own.

    Parameters
    ----------
    folder
        With ``tokenizer.json``, or what transformers makes one of. Where ``tokenizer_config.json`` has transformers read texts otherwise
        than ``tokenizer.json`` by itself, as in lower case, it is read as transformers does.
    lowercase
        Texts are put into lower case before anything else.
    note
        Is told where the two differ.

    Raises
    ------
    MissingExtra
        transformers or tokenizers is not installed.
    DataError
        There is none that can be read.
    """
    try:
        from tokenizers import Tokenizer, normalizers

        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", "text", where=str(folder)) from error
    alone = (folder / ASSET).is_file()
    try:
        tokenizer: Any = Tokenizer.from_file(str(folder / ASSET)) if alone else _of_transformers(library, folder)
    except Exception as error:  # both libraries raise errors of many kinds
        raise DataError(
            f"holds no tokenizer that can be read ({next(iter(str(error).splitlines()), type(error).__name__)})",
            where=str(folder),
            hint=f"put {ASSET} there, as the model's tokenizer saves it",
        ) from error
    if alone:
        tokenizer = _as_trained(tokenizer, library, folder, note or (lambda _: None))
    if lowercase:
        before = tokenizer.normalizer
        lower = normalizers.Lowercase()
        tokenizer.normalizer = lower if before is None else normalizers.Sequence([lower, before])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str()).encode()


def _of_transformers(library: Any, folder: Path) -> Any:
    with without_log(library):
        found = library.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    return found.backend_tokenizer


def _as_trained(tokenizer: Any, library: Any, folder: Path, note: Callable[[str], None]) -> Any:
    """The tokenizer, or the one that transformers makes of the folder where that reads otherwise."""
    configured = (folder / "tokenizer_config.json").is_file()
    try:
        other = _of_transformers(library, folder)
        probe = next((each for each in _PROBES if _ids(tokenizer, each) != _ids(other, each)), None)
    except Exception as error:  # as above
        if configured:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            note(f"transformers cannot read the tokenizer ({why}); {ASSET} is read by itself")
        return tokenizer
    if probe is None:
        return tokenizer
    if not configured:
        note(
            f"without a tokenizer_config.json {ASSET} is read by itself, and transformers would read texts otherwise, such as {probe!r}"
        )
        return tokenizer
    note(
        f"{ASSET} by itself reads texts otherwise than transformers does with tokenizer_config.json, which is followed"
    )
    return other


def _ids(tokenizer: Any, text: str) -> list[int]:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return list(tokenizer.encode(text).ids)


def padding_of(tokenizer: bytes, config: dict[str, Any], folder: Path) -> int:
    """The id of padding.

    Raises `DataError` where the tokenizer has other tokens than the table of words has rows, or where padding would be taken for a word or
    a word for padding.
    """
    from tokenizers import Tokenizer

    known: Any = Tokenizer.from_str(tokenizer.decode())
    vocabulary: dict[str, int] = known.get_vocab()
    rows = config.get("vocab_size")
    most = max(vocabulary.values(), default=-1) + 1
    if not isinstance(rows, int) or most > rows:
        raise DataError(
            f"the tokenizer does not fit the weights: it gives ids up to {most - 1}, and the table of words has {rows} rows",
            where=str(folder),
            hint="put the tokenizer beside the weights that it was trained with",
        )
    padding = config.get("pad_token_id")
    likely = next((f"{vocabulary[name]}, {name}" for name in ("[PAD]", "<pad>") if name in vocabulary), None)
    hint = "set pad_token_id in config.json to " + (likely or "the id of a token that no text holds")
    if padding is None:
        raise DataError(
            "config.json names no pad_token_id, so that texts of unequal length make no batch",
            where=str(folder),
            hint=hint,
        )
    wrong = _wrong(padding, known, vocabulary)
    if wrong:
        raise DataError(f"pad_token_id {padding!r} cannot be padding: {wrong}", where=str(folder), hint=hint)
    return int(padding)


def _wrong(padding: Any, tokenizer: Any, vocabulary: dict[str, int]) -> str:
    """Why the id is none of padding; empty where it is one."""
    if not isinstance(padding, int) or isinstance(padding, bool):
        return f"it is a {type(padding).__name__}, not a number"
    token = tokenizer.id_to_token(padding) if padding >= 0 else None
    if token is None:
        return f"the tokenizer has ids from 0 to {max(vocabulary.values(), default=-1)}"
    if padding in tokenizer.encode("").ids:
        return f"it is {token!r}, which the tokenizer puts into every text"
    if token == getattr(tokenizer.model, "unk_token", None) and not getattr(tokenizer.model, "byte_fallback", False):
        return f"it is {token!r}, which stands for unknown words"
    if padding not in tokenizer.get_added_tokens_decoder() and not _NAMED.fullmatch(token):
        return f"it is {token!r}, a word of texts, and such words would not be read"
    return ""

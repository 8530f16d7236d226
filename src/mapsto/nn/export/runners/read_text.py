"""Texts, one a line, by the package's own tokenizer, as `mapsto_runtime.preprocessing.texts` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read"]

# ---- below this line: part of the runner


def read(path: Path, signature: dict[str, Any]) -> Any:
    """The texts of a file in UTF-8, one a line, pairs with a tab between them, as token ids: (N, L) or (N, 2, L)."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SystemExit("this package reads texts: pip install tokenizers") from error
    before = signature["preprocessing"]
    tokenizer: Any = Tokenizer.from_file(str(Path(__file__).with_name("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(before["length"])
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    pairs = [[piece.strip() for piece in line.split("\t")] if before["texts"] > 1 else [line] for line in lines]
    if not pairs or any(len(pieces) != before["texts"] or not all(pieces) for pieces in pairs):
        raise ValueError(f"{before['texts']} of texts a line are wanted, with a tab between two, and none empty")
    ids = [tokenizer.encode(piece).ids for pieces in pairs for piece in pieces]
    length = max(map(len, ids))
    padded = np.array([row + [before["padding"]] * (length - len(row)) for row in ids], np.int64)
    return padded if before["texts"] == 1 else padded.reshape(len(pairs), before["texts"], length)

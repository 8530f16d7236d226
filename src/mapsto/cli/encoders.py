"""Encoders of texts as commands name them: a folder saved by transformers, or ``hf:OWNER/NAME`` on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["encoder_node", "is_encoder"]

_HUB = "hf:"


def is_encoder(place: Path) -> bool:
    """Whether `encoder_node` knows the place."""
    return str(place).startswith(_HUB) or (place / "config.json").is_file()


def encoder_node(place: Path | None, *, texts: int = 1) -> tuple[dict[str, dict[str, Any]], str]:
    """The step of a recipe that gives an encoder, and what it is called; MiniLM where none is named. `texts` is 2 for pairs."""
    more = {} if texts == 1 else {"texts": texts}
    if place is None:
        return {"networks.minilm": more}, "MiniLM-L6 (English sentences)"
    if str(place).startswith(_HUB):
        model = str(place).removeprefix(_HUB)
        return {"networks.hf_text": {"model": model, **more}}, model
    return {"networks.hf_text": {"folder": str(place.resolve()), **more}}, place.resolve().name

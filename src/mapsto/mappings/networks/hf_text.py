"""A text encoder of transformers, from a configuration or a local folder (extra `text`); nothing is fetched.

``f(x) = mean over tokens of h(x)``, the last hidden states where there is no padding (Reimers and Gurevych, "Sentence-BERT", 2019; Wolf
et al., "Transformers: State-of-the-Art Natural Language Processing", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import network_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HfText"]


class HfText(Mapping[None, Network]):
    """An encoder: with trained weights of texts, by the tokenizer beside them; with fresh ones of token ids (N, L), padded."""

    version: ClassVar[int] = 3

    configuration: dict[str, Any] | None = None
    """As in ``config.json``, with ``model_type``: fresh weights. Give this or `folder`."""
    folder: str | None = None
    """A folder saved by transformers, with ``config.json`` and ``model.safetensors``: a path, or one inside the data folder."""
    length: int = Field(default=128, ge=2)
    """With `folder` the most tokens of a text that are read; else those of an example in the signature."""
    classes: int | None = Field(default=None, ge=1)
    """Outputs; none: the output is the embedding."""
    texts: Literal[1, 2] = 1
    """Texts of a sample; 2: pairs, whose embedding holds both and compares them."""

    contract: ClassVar[dict[str, Any]] = {
        "configuration": {
            "model_type": "bert",
            "vocab_size": 16,
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "intermediate_size": 8,
        }
    }

    def __post_init__(self) -> None:
        if (self.configuration is None) == (self.folder is None):
            raise SpecError(
                "give either configuration or folder", where="networks.hf_text", hint="folder for trained weights"
            )

    def fingerprint(self) -> str:
        """A digest of the folder's content; empty without one."""
        from mapsto.data.io.fingerprint import file_digests

        if self.folder is None:
            return ""
        return " ".join(file_digests(sorted(path for path in self._folder().iterdir() if path.is_file())))

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `MissingExtra` without the extra `text`, `DataError` for a folder that lacks a file or whose tokenizer does not fit."""
        import torch

        from mapsto.nn.network.text_encoder import DROPPED, text_encoder

        if self.folder is not None:
            return text_encoder(self._folder(), length=self.length, classes=self.classes, texts=self.texts)
        config = {name: entry for name, entry in (self.configuration or {}).items() if name not in DROPPED}
        names = None if self.classes is None else tuple(str(index) for index in range(self.classes))
        pair = {} if self.texts == 1 else {"texts": self.texts}
        shape = (2, *pair.values(), self.length)
        return network_of(
            "mapsto.nn.networks.hf:hf_text",
            {"config": config, "classes": self.classes, **pair},
            Preprocessing(kind="none"),
            classes=names,
            example=torch.ones(shape, dtype=torch.int64),
        )

    def _folder(self) -> Path:
        from mapsto.data.io.download import locate

        return locate(self.folder or "", what="the model's folder")

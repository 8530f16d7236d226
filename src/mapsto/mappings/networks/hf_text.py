"""A text encoder of transformers, from a configuration or a local folder (extra `text`); nothing is fetched.

``f(x) = mean over tokens of h(x)``, the last hidden states where there is no padding (Reimers and Gurevych, "Sentence-BERT", 2019; Wolf
et al., "Transformers: State-of-the-Art Natural Language Processing", 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, SpecError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Mapping
from mapsto.nn.network.build import network_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["HfText"]

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")
_DROPPED = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path")


class HfText(Mapping[None, Network]):
    """An encoder of token ids (N, L), padded with the padding id; its tokenizer travels with it as assets."""

    version: ClassVar[int] = 2

    configuration: dict[str, Any] | None = None
    """As in ``config.json``, with ``model_type``: fresh weights. Give this or `folder`."""
    folder: str | None = None
    """A folder saved by transformers, with ``config.json`` and ``model.safetensors``: a path, or one inside the data folder."""
    length: int = Field(default=128, ge=2)
    """Tokens of an example in the signature; a batch may have any number."""
    classes: int | None = Field(default=None, ge=1)
    """Outputs; none: the output is the embedding."""

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
        """Raises `MissingExtra` without the extra `text`, `DataError` for a folder that lacks a file."""
        import json

        import torch

        from mapsto.kinds import Factory

        config, tensors, assets = self.configuration, None, dict[str, bytes]()
        factory = "mapsto.nn.networks.hf:hf_text"
        if self.folder is not None:
            folder = self._folder()
            made = Factory(name=factory, arguments={"folder": str(folder), "classes": self.classes}).build()
            tensors = made.state_dict()
            config = cast("dict[str, Any]", json.loads((folder / "config.json").read_text(encoding="utf-8")))
            assets = {name: (folder / name).read_bytes() for name in _TOKENIZER if (folder / name).is_file()}
        config = {name: entry for name, entry in (config or {}).items() if name not in _DROPPED}
        names = None if self.classes is None else tuple(str(index) for index in range(self.classes))
        return network_of(
            factory,
            {"config": config, "classes": self.classes},
            Preprocessing(kind="none"),
            classes=names,
            tensors=tensors,
            assets=assets,
            example=torch.ones(2, self.length, dtype=torch.int64),
        )

    def _folder(self) -> Path:
        from mapsto.data.io.download import locate

        folder = locate(self.folder or "", what="the model's folder")
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise DataError(f"there is no {name}", where=str(folder), hint="give a folder saved by transformers")
        return folder

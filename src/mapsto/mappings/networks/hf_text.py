"""A text encoder of transformers, by its name on the hub, from a local folder or a configuration (extra `text`).

``f(x) = mean over tokens of h(x)``, the last hidden states where there is no padding, or the state of the first token or the last, as
the model was trained (Reimers and Gurevych, "Sentence-BERT", 2019; Wolf et al., "Transformers: State-of-the-Art Natural Language
Processing", 2020).
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

    version: ClassVar[int] = 4

    configuration: dict[str, Any] | None = None
    """As in ``config.json``, with ``model_type``: fresh weights. Give this, `folder` or `model`."""
    folder: str | None = None
    """A folder saved by transformers, with ``config.json`` and ``model.safetensors``: a path, or one inside the data folder."""
    model: str | None = None
    """A model of the Hugging Face hub, as ``sentence-transformers/all-MiniLM-L12-v2``: fetched once, without its code."""
    revision: str | None = None
    """Of `model`: a commit, a tag or a branch; None: the newest. Give a commit where a recipe shall mean the same next year."""
    adapter: str | None = None
    """An adapter that peft saved for this encoder, as LoRA, DoRA or IA3, a folder or ``hf:OWNER/NAME``: merged into the weights."""
    length: int | None = Field(default=None, ge=2)
    """The most tokens of a text that are read; None: as sentence-transformers says beside the weights, else 128, or as many as the encoder
    reads where that is fewer. With `configuration` those of an example in the signature."""
    pooling: Literal["mean", "cls", "last"] | None = None
    """How the states of a text's tokens become its embedding: their mean, that of the first token, or of the last. None: as
    ``modules.json`` of sentence-transformers says, and the mean where there is none."""
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
        if sum(source is not None for source in (self.configuration, self.folder, self.model)) != 1:
            raise SpecError(
                "give one of configuration, folder and model",
                where="networks.hf_text",
                hint="folder or model for trained weights",
            )
        if self.adapter is not None and self.configuration is not None:
            raise SpecError("it is for trained weights", where="adapter", hint="give folder or model, or leave it out")
        if self.revision is not None and self.model is None:
            raise SpecError("it is one of a model of the hub", where="revision", hint="name the model, or leave it out")

    def fingerprint(self) -> str:
        """A digest of the folder's content; empty without one."""
        from mapsto.data.io.fingerprint import file_digests

        if self.configuration is not None:
            return ""
        folders = [self._folder(), *([] if self.adapter is None else [self._adapter(self.adapter)])]
        found = [path for each in folders for path in (*sorted(each.iterdir()), *sorted(each.glob("*/config.json")))]
        return " ".join(file_digests(path for path in found if path.is_file()))

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `MissingExtra` without the extra `text`, `DataError` for a model that cannot be fetched, or whose files are
        not all there or do not fit each other.
        """
        import torch

        from mapsto.nn.network.text_encoder import DROPPED, MOST_TOKENS, text_encoder

        if self.configuration is None:
            return text_encoder(
                self._folder(),
                length=self.length,
                classes=self.classes,
                pooling=self.pooling,
                texts=self.texts,
                adapter=None if self.adapter is None else self._adapter(self.adapter),
                note=ctx.note,
            )
        config = {name: entry for name, entry in self.configuration.items() if name not in DROPPED}
        names = None if self.classes is None else tuple(str(index) for index in range(self.classes))
        pair = {} if self.texts == 1 else {"texts": self.texts}
        pooling = {} if self.pooling is None else {"pooling": self.pooling}
        shape = (2, *pair.values(), self.length or MOST_TOKENS)
        return network_of(
            "mapsto.nn.networks.hf:hf_text",
            {"config": config, "classes": self.classes, **pair, **pooling},
            Preprocessing(kind="none"),
            classes=names,
            example=torch.ones(shape, dtype=torch.int64),
        )

    def _folder(self) -> Path:
        from mapsto.data.io.download import locate
        from mapsto.data.io.model_hub import model_folder

        if self.model is not None:
            return model_folder(self.model, self.revision)
        return locate(self.folder or "", what="the model's folder")

    @staticmethod
    def _adapter(place: str) -> Path:
        from mapsto.data.io.download import locate
        from mapsto.data.io.model_hub import model_folder

        return model_folder(place.removeprefix("hf:")) if place.startswith("hf:") else locate(place, what="the adapter")

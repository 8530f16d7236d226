"""What a folder of sentence-transformers says beside the weights: how token states become an embedding, and how texts are read.

``modules.json`` lists the steps from a text to its embedding, each with a ``config.json`` in a folder of its own, and
``sentence_bert_config.json`` says how many tokens are read (Reimers and Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mapsto.errors import DataError
from mapsto.nn.networks.hf import Pooling

__all__ = ["SentenceModules", "json_object", "sentence_modules"]

_MODULES = "modules.json"
_KNOWN = ("Transformer", "Pooling", "Normalize")
"""In this order, each at most once."""
_POOLING: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""As releases before 6 wrote it → the name of the same."""
_READING = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_HINT = "give a folder whose modules are Transformer, Pooling (cls, mean or lasttoken) and Normalize, or remove modules.json"


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """From a text to its embedding."""

    pooling: Pooling | None = None
    """None: nothing is said."""
    normalize: bool = False
    length: int | None = None
    """The most tokens of a text that are read; None: nothing is said."""
    lowercase: bool = False
    """Whether texts are read in lower case, whatever the tokenizer does."""
    prompt: str = ""
    """What sentence-transformers puts before every text."""


def sentence_modules(folder: Path, pooling: Pooling | None = None) -> SentenceModules:
    """What the folder says, or of pooling what is given.

    Raises `DataError` where it asks for more than is supported here, or a file cannot be read.
    """
    if not (folder / _MODULES).is_file():
        return SentenceModules(pooling=pooling)
    kinds = _kinds(folder)
    reading = next((json_object(folder / name) for name in _READING if (folder / name).is_file()), {})
    length = reading.get("max_seq_length")
    if length is None and (folder / "tokenizer_config.json").is_file():
        length = json_object(folder / "tokenizer_config.json").get("model_max_length")
    return SentenceModules(
        pooling=pooling or (_pooling(folder, kinds["Pooling"]) if "Pooling" in kinds else None),
        normalize="Normalize" in kinds,
        length=length if isinstance(length, int) and length > 1 else None,
        lowercase=bool(reading.get("do_lower_case")),
        prompt=_prompt(folder),
    )


def json_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file. Raises `DataError` where it is no JSON object."""
    content = _json(path)
    if not isinstance(content, dict):
        raise DataError(
            f"is a JSON {type(content).__name__}, not an object", where=str(path), hint="put the model's own file there"
        )
    return cast("dict[str, Any]", content)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read as JSON ({error})", where=str(path), hint="put the model's own file there"
        ) from error


def _kinds(folder: Path) -> dict[str, str]:
    """The modules' kinds → their folders, in their order."""
    modules = _json(folder / _MODULES)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in cast("list[Any]", modules)):
        raise DataError("is no list of modules", where=str(folder / _MODULES), hint=_HINT)
    entries = cast("list[dict[str, Any]]", modules)
    types = [str(entry.get("type")) for entry in entries]
    names = [each.rpartition(".")[2] for each in types]
    strange = [
        each
        for each, name in zip(types, names, strict=True)
        if not each.startswith("sentence_transformers.") or name not in _KNOWN
    ]
    if strange:
        raise DataError(
            f"the embedding is made by {' and '.join(strange)} too, which is not supported",
            where=str(folder / _MODULES),
            hint=_HINT,
        )
    if names != [name for name in _KNOWN if name in names]:
        raise DataError(
            f"the modules are {', '.join(names)}, and supported are {', '.join(_KNOWN)} in this order",
            where=str(folder / _MODULES),
            hint=_HINT,
        )
    kinds = {name: str(entry.get("path") or "") for name, entry in zip(names, entries, strict=True)}
    if kinds.get("Transformer"):
        raise DataError(
            f"the encoder stands in a folder of its own, {kinds['Transformer']}",
            where=str(folder / _MODULES),
            hint="save the model again with sentence-transformers 3 or later, which puts it beside modules.json",
        )
    return kinds


def _pooling(folder: Path, path: str) -> Pooling:
    place = folder / path / "config.json"
    config = json_object(place)
    modes = config.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if config.get(flag)] or "mean"
    names = [modes] if isinstance(modes, str) else [str(mode) for mode in modes]
    if len(names) != 1 or names[0] not in _POOLING:
        raise DataError(
            f"token states are pooled by {' and '.join(names)}, and supported is one of {', '.join(_POOLING)}",
            where=str(place),
            hint="set pooling to one of mean, cls and last to have other embeddings than sentence-transformers gives",
        )
    return _POOLING[names[0]]


def _prompt(folder: Path) -> str:
    path = folder / "config_sentence_transformers.json"
    config = json_object(path) if path.is_file() else {}
    prompts = config.get("prompts")
    if not isinstance(prompts, dict):
        return ""
    return str(cast("dict[str, Any]", prompts).get(str(config.get("default_prompt_name")), ""))

"""Adapters that peft trained and saved, merged into the weights of the encoder that they belong to (extra `text`)."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from mapsto.errors import DataError, MissingExtra

__all__ = ["with_adapter"]

_PREFIX = "base_model.model."
"""Of every name in an adapter's file."""
_FILES = ("adapter_config.json", "adapter_model.safetensors")


def with_adapter(encoder: nn.Module, folder: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """The encoder with an adapter's change of its weights, and what of the adapter is not of the encoder, as a head beside it.

    Raises
    ------
    MissingExtra
        peft is not installed.
    DataError
        A file is missing or cannot be read, the adapter does not fit the encoder, or it is of a kind that cannot be merged, as prompts.
    """
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise MissingExtra("peft", "text", where="networks.hf_text: adapter") from error
    for name in _FILES:
        if not (folder / name).is_file():
            raise DataError(
                f"there is no {name}", where=str(folder), hint="give a folder that peft's save_pretrained made"
            )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            adapted = peft.get_peft_model(encoder, config)
            if not hasattr(adapted, "merge_and_unload"):
                raise TypeError(f"{config.peft_type.value} adds inputs and changes no weights")
            wanted = set(peft.get_peft_model_state_dict(adapted))
            given = _renamed(peft.utils.save_and_load.load_peft_weights(str(folder), device="cpu"), wanted, encoder)
            _require_all(set(given), wanted)
            peft.set_peft_model_state_dict(adapted, {name: given[name] for name in wanted})
            merged = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft raises errors of many kinds for a file that does not fit
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"the adapter cannot be merged into this encoder: {why}",
            where=str(folder),
            hint="give the encoder that it was trained on, and an adapter of weights, as LoRA, DoRA or IA3",
        ) from error
    return merged, tuple(sorted(set(given) - wanted))


def _renamed(given: dict[str, Any], wanted: set[str], encoder: nn.Module) -> dict[str, Any]:
    """Tensors by the encoder's own names: an adapter of a classifier says ``bert.encoder…`` where the encoder says ``encoder…``."""
    inner = f"{_PREFIX}{getattr(encoder, 'base_model_prefix', '')}."
    return {
        name if name in wanted or not name.startswith(inner) else _PREFIX + name.removeprefix(inner): tensor
        for name, tensor in given.items()
    }


def _require_all(given: set[str], wanted: set[str]) -> None:
    """Raises `ValueError` where a part of the adapter would stay as it is drawn, or where none of the encoder's would be used."""
    missing = sorted(wanted - given)
    if missing:
        raise ValueError(f"it has nothing for {len(missing)} of {len(wanted)} layers' numbers, such as {missing[0]}")
    strange = sorted(name for name in given - wanted if ".layer." in name or ".layers." in name)
    if strange:
        raise ValueError(f"the encoder has no place for {len(strange)} of its tensors, such as {strange[0]}")

"""Any model of transformers by its class and configuration, as a network of one input and one output (extra ``text``).

Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", 2020. Names of tensors are transformers' own, so that its
``model.safetensors`` fits. Tokens that are the configuration's padding are masked.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError, MissingExtra
from mapsto.nn.networks.hf import configured
from mapsto.nn.networks.one_output import taken

__all__ = ["hf_model", "is_masked", "padding_mask"]


def hf_model(*, model: str, config: dict[str, Any], output: str = "logits") -> nn.Module:
    """A model with fresh weights.

    Parameters
    ----------
    model
        A class of transformers, as ``BertForSequenceClassification``.
    config
        As in ``config.json``, with ``model_type``.
    output
        Which of its outputs is given.

    Raises
    ------
    MissingExtra
        transformers is not installed.
    DomainError
        There is no such class, it needs more than one input, or it refuses the configuration.
    """
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", "text", where="hf_model") from error
    cls: Any = getattr(library, model, None)
    if not (isinstance(cls, type) and issubclass(cls, library.PreTrainedModel)):
        raise DomainError(f"transformers has no model '{model}'", where="hf_model", hint="give the name of its class")
    return configured(library, config, _of_one_input(cls, output), where="hf_model")


def is_masked(cls: Any) -> bool:
    """Whether a class of transformers takes token ids with a mask of the padding."""
    return str(cls.main_input_name) == "input_ids" and "attention_mask" in inspect.signature(cls.forward).parameters


def padding_mask(config: Any, x: Tensor) -> dict[str, Tensor]:
    """The ``attention_mask`` of the configuration's padding in token ids; empty where it names none."""
    padding = getattr(config, "pad_token_id", None)
    return {} if padding is None else {"attention_mask": (x != padding).to(torch.int64)}


def _of_one_input(cls: Any, output: str) -> Any:
    """A subclass that takes the model's main input and gives one output."""
    main, takes = str(cls.main_input_name), inspect.signature(cls.forward).parameters
    others = [
        name for name in ("decoder_input_ids", "pixel_values", "input_ids", "bbox") if name in takes and name != main
    ]
    if others:
        raise DomainError(
            f"{cls.__name__} takes {main} and {', '.join(others)}, and a network has one input",
            where="hf_model",
            hint="give its encoder alone",
        )
    masked = is_masked(cls)

    def forward(self: Any, x: Tensor) -> Tensor:
        mask = padding_mask(self.config, x) if masked else {}
        return taken(cls.forward(self, **{main: x}, **mask), output)

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})

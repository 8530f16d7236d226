"""Mark biases as what is trained where all else is frozen: nothing is added, nothing changes.

Biases of layers, and the shifts of normalisations, which are biases too (Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple
Parameter-efficient Fine-tuning for Transformer-based Masked Language-models", 2022).
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import Field
from torch import nn

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits._adapted_layer import layer_at

__all__ = ["Bitfit", "biases_of", "marked", "unmark"]


class Bitfit(Edit):
    """Marks at parts that have biases.

    >>> from mapsto.nn.edits._adapted_layer import adapter_parameters
    >>> adapter_parameters(Bitfit(targets=("0",)).apply(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))))
    ['0.bias']
    """

    targets: tuple[str, ...] = Field(min_length=1)
    """Paths of the parts."""

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where a part is not there or has no bias, or has adapters."""
        for path in self.targets:
            part = layer_at(module, path, where="bitfit")
            if not biases_of(part):
                raise DomainError(
                    f"a {type(part).__name__} without a bias, or with adapters",
                    where=f"bitfit: {path}",
                    hint="name parts that have a bias",
                )
            cast("Any", part).mapsto_trained = biases_of(part)
        return module


def biases_of(part: nn.Module) -> tuple[str, ...]:
    """Names of a part's own biases that are not marked; none where it has adapters of its own."""
    if getattr(part, "mapsto_trained", ()):
        return ()
    own = part.named_parameters(recurse=False)
    return tuple(name for name, parameter in own if parameter.ndim == 1 and (name == "bias" or name.endswith("_bias")))


def marked(module: nn.Module) -> list[str]:
    """Paths of the parts whose biases are marked."""
    return [path for path, part in module.named_modules() if "mapsto_trained" in vars(part)]


def unmark(part: nn.Module) -> bool:
    """Take the marks away; whether there were any."""
    marked = "mapsto_trained" in vars(part)
    if marked:
        del part.mapsto_trained
    return marked

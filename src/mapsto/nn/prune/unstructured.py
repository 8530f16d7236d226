"""Pruning single weights: the fields of every mapping that does, how much each weight matters, and the masked network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.discovery import name_of
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Frozen, Network
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Masking", "masked"]


class Masking(Frozen):
    """The fields of every mapping that sets single weights to zero."""

    criterion: Literal["magnitude", "wanda"] = Field(
        default="magnitude",
        description="What a weight's worth is: `magnitude` |w|; `wanda` |w| times the norm of its input on `data`.",
    )
    data: DataSource | None = Field(
        default=None, description="Samples that inputs are measured on, with `wanda`; labels are not used."
    )
    samples: int = Field(default=128, ge=1, description="How many of them; 128 in Sun et al.")
    skip: tuple[str, ...] = Field(
        default=(), description="Paths of modules whose weights stay, with all below them, such as the head."
    )

    def __post_init__(self) -> None:
        if (self.criterion == "wanda") != (self.data is not None):
            raise SpecError(
                "criterion: wanda needs data" if self.data is None else "data is of no use to criterion: magnitude",
                where=name_of(type(self)),
                hint="give both of them or none",
            )

    def layers(self, module: nn.Module) -> dict[str, nn.Module]:
        """Path → layer whose weights may go. Raises `DomainError` for a network that has none."""
        from mapsto.nn.edits.masks import is_maskable
        from mapsto.nn.quantize.post_training import require_paths

        where = name_of(type(self))
        require_paths(module, self.skip, where=where)
        found = {
            path: part
            for path, part in module.named_modules()
            if is_maskable(part) and not any(path == skip or path.startswith(f"{skip}.") for skip in self.skip)
        }
        if not found:
            raise DomainError(
                "the network has no layer whose weights could be masked",
                where=where,
                hint="masks go with plain linear layers and convolutions; skip fewer modules",
            )
        return found

    def scores(
        self, value: Network, module: nn.Module, layers: Mapping[str, nn.Module], ctx: Context
    ) -> dict[str, Tensor]:
        """Path → worth of each weight, of the weight's shape, float64. Raises `DataError` and `DomainError` for data that does not fit."""
        from mapsto.nn.network.input_statistics import input_norms
        from mapsto.nn.train.calibration_batches import inputs_of

        weights = {path: layer.get_parameter("weight").detach().abs().double() for path, layer in layers.items()}
        if self.data is None:
            return weights
        where = name_of(type(self))
        batches = inputs_of(value, self.data, self.samples, ctx, where=where)
        norms = input_norms(module, layers, ctx.track(batches, what="inputs"))
        return {path: weight * norms[path] for path, weight in weights.items() if path in norms}


def masked(value: Network, module: nn.Module, kept: Mapping[str, Tensor], *, where: str) -> Network:
    """The network with the weights at zero that are not `kept`, by path of their layer; zeros stay zeros in training.

    Raises `DomainError` where a layer would lose all of its weights.
    """
    import torch

    from mapsto.nn.edits.masks import Masks

    for path, mask in kept.items():
        weight = module.get_submodule(path).get_parameter("weight")
        if bool(weight.any()) and not bool((weight * mask).any()):
            raise DomainError(
                f"all {weight.numel():,} weights of '{path}' would go",
                where=where,
                hint="set a smaller share, compare within layers, or skip this one",
            )
        with torch.no_grad():
            weight.mul_(mask)
    edit = Masks(layers=tuple(kept))
    return value.with_module(edit.apply(module), edit)

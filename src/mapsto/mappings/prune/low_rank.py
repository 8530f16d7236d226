"""Factorise layers: each linear layer or convolution becomes two or three thin ones, of ranks that a budget for all of them buys.

``W ≈ B A``, the truncated singular value decomposition, for linear layers and 1×1 convolutions; for the others Tucker-2, ``W ≈ G ×₁
B ×₂ A`` with a core G between few channels (Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power
Mobile Applications", 2016). With `data` what is kept is not the weight but the layer's output: ``min E‖W x − B A x‖²``, by the
second moments of its inputs. Ranks start at 1, and the next component goes where it keeps the greatest share of its layer's energy
for what it costs, until the budget is spent; a layer whose factors would be no smaller stays whole, as does the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto.nn.prune.budget import Sized

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mapsto.nn.edits.low_rank import Factorable
    from mapsto.nn.prune.low_rank import Positions

__all__ = ["LowRank"]


class LowRank(Sized, Mapping[Network, Network]):
    """The network with layers in factors; training goes on as before.

    Raises `SpecError` unless exactly one budget is given, `DataError` for no samples or values that are not finite, and
    `DomainError` for a network that is quantized, has adapters or no layer to factorise, or cannot be made as small.

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.digits(size=16)
    >>> big = train.supervised(data=digits, epochs=3)(networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0))
    >>> accuracy = lambda net: evaluate.accuracy(data=digits)(net).metrics["accuracy"].value
    >>> plain, aware = LowRank(macs=0.6)(big), LowRank(macs=0.6, data=digits)(big)
    >>> evaluate.size(baseline=big)(aware).metrics["macs_ratio"].value > 1.6, accuracy(aware) > accuracy(plain) + 40
    (True, True)
    """

    data: DataSource | None = None
    """Samples whose way through the layers decides what is kept; labels are not used. By default the weights decide."""
    samples: int = Field(default=256, ge=1)
    """How many of them."""
    sweeps: int = Field(default=3, ge=0)
    """Rounds of alternation after which the factors of a convolution are taken; 0 leaves them as the truncated ones."""
    skip: tuple[str, ...] = ()
    """Paths of modules that stay whole, with all below them."""

    contract: ClassVar[dict[str, Any]] = {"macs": 0.6}

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.low_rank import LowRank as LowRankEdit
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.profile.cost import cost_of
        from mapsto.nn.prune.budget_check import told_reached
        from mapsto.nn.prune.checks import require_prunable
        from mapsto.nn.prune.low_rank import allocated, positions, set_factors, spectrum

        module = require_prunable(value, where=self.name)
        layers = self._layers(module)
        places = positions(module, layers, example_batch(value))
        if not places:
            raise DomainError(
                "the network has no layer to factorise",
                where=self.name,
                hint="plain linear layers and convolutions without groups can be, but the head is not; skip fewer modules",
            )
        moments = self._moments(value, module, list(places), ctx)
        spectra = [spectrum(path, layers[path], moments.get(path)) for path in ctx.track(list(places), what="layers")]
        budget = self.budget
        whole = cost_of(value, cast("Any", budget.kind))
        priced = {path: self._priced(found, layers[path]) for path, found in places.items()}
        rest = whole - sum(layers[path].weight.numel() * found.outputs for path, found in priced.items())
        limit = budget.limit * (whole if budget.unit == "share" else 1)
        ranks = allocated(spectra, priced, rest, limit, budget=budget, where=self.name)
        if not ranks:
            told_reached(value, value, budget, ctx)
            return value
        ctx.log(f"{len(ranks)} of {len(spectra)} layers are factorised")
        edit = LowRankEdit(layers=tuple(ranks))
        module = edit.apply(module)
        known = {found.path: found for found in spectra}
        for layer in ranks:
            factors = cast("nn.Sequential", module.get_submodule(layer.path))
            set_factors(factors, known[layer.path], layer, sweeps=self.sweeps)
        small = value.with_module(module, edit)
        told_reached(value, small, budget, ctx)
        return small

    def _layers(self, module: nn.Module) -> dict[str, Factorable]:
        """Path → layer that may be factorised: not the head, and no weight that two layers share."""
        from collections import Counter

        from mapsto.nn.edits.low_rank import is_factorable
        from mapsto.nn.network.head import head_path
        from mapsto.nn.quantize.post_training import require_paths

        require_paths(module, self.skip, where=self.name)
        uses = Counter(id(tensor) for _, tensor in module.named_parameters(remove_duplicate=False))
        whole = tuple(path for path in (*self.skip, head_path(module)) if path is not None)
        return {
            path: cast("Any", part)
            for path, part in module.named_modules()
            if path
            and is_factorable(part)
            and uses[id(part.weight)] == 1
            and not any(path == stays or path.startswith(f"{stays}.") for stays in whole)
        }

    def _moments(self, value: Network, module: nn.Module, paths: list[str], ctx: Context) -> dict[str, Tensor]:
        from mapsto.nn.network.input_statistics import input_moments
        from mapsto.nn.train.calibration_batches import inputs_of

        if self.data is None:
            return {}
        batches = inputs_of(value, self.data, self.samples, ctx, where=self.name)
        return input_moments(module, paths, ctx.track(batches, what="inputs"))

    def _priced(self, places: Positions, layer: Factorable) -> Positions:
        """What a weight of the layer costs in the budget's unit, at its inputs' positions and at its outputs'."""
        from mapsto.nn.prune.low_rank import Positions

        if self.macs is not None:
            return places
        price = float(layer.weight.element_size()) if self.bytes is not None else 1.0
        return Positions(price, price)

"""Low-rank factors of layers: how much of a layer each rank keeps, which ranks a budget buys, and the factors themselves.

Energy is the squared norm of a weight or, where the inputs' second moments are known, of the layer's output (for a kernel of
several places that of its input channels alone): with S Sᵀ = E[x xᵀ] the weight W S is factorised, and S⁻¹ goes into the first
factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits.low_rank import Factorable, is_pointwise
from mapsto.nn.edits.low_rank import Ranks as LayerRanks
from mapsto.nn.network.layer_calls import run_watched
from mapsto.nn.prune.budget import Budget, shown

__all__ = ["Positions", "Spectrum", "allocated", "positions", "set_factors", "spectrum"]

_DAMPING = 1e-4
"""Share of the mean second moment that is added to every direction of the input."""


@dataclass
class Positions:
    """Places of one sample at which a layer works, over all of its calls."""

    inputs: float = 0.0
    outputs: float = 0.0


def positions(module: nn.Module, layers: Mapping[str, Factorable], example: Tensor) -> dict[str, Positions]:
    """Path of each layer that runs on `example`, shape (N, ...) → its positions."""
    places: dict[str, Positions] = {}

    def count(path: str, given: tuple[Tensor, ...], output: Tensor) -> None:
        here = places.setdefault(path, Positions())
        outputs, inputs = layers[path].weight.shape[:2]
        here.inputs += given[0].numel() / (given[0].shape[0] * inputs)
        here.outputs += output.numel() / (given[0].shape[0] * outputs)

    run_watched(module, layers, [example], count)
    return places


@dataclass(kw_only=True, eq=False)
class Spectrum:
    """A layer's weight as a (whitened) matrix or tensor, and the energy of each of its components."""

    path: str
    layer: Factorable
    weight: Tensor
    """Shape (outputs, inputs, places of the kernel), float64, whitened."""
    root: Tensor | None
    """S, lower triangular, shape (inputs, inputs); None for the identity."""
    energies: tuple[Tensor, ...]
    """Of the outputs' components, and of the inputs' where there are two ranks, greatest first; they sum to 1."""
    bases: tuple[Tensor, ...]
    """Their directions as columns."""

    @property
    def least(self) -> Chosen:
        """The lowest ranks."""
        return Chosen(self, [1] * len(self.energies))


def spectrum(path: str, layer: Factorable, moments: Tensor | None = None) -> Spectrum:
    """The components of a layer, by their energy on inputs of second moments `moments`, shape (inputs, inputs)."""
    weight = (
        layer.weight.detach().double().flatten(2)
        if layer.weight.ndim > 2
        else layer.weight.detach().double()[..., None]
    )
    root = None if moments is None else _root(moments)
    if root is not None:
        weight = torch.einsum("oik,ij->ojk", weight, root)
    sides = (0,) if is_pointwise(layer) else (0, 1)
    if sides == (0,) and weight.shape[1] < weight.shape[0]:
        sides = (1,)
    found = [_components(weight.movedim(side, 0).flatten(1)) for side in sides]
    energies, bases = zip(*found, strict=True)
    return Spectrum(path=path, layer=layer, weight=weight, root=root, energies=energies, bases=bases)


def _root(moments: Tensor) -> Tensor | None:
    level = _DAMPING * float(moments.diagonal().mean())
    return torch.linalg.cholesky(moments + level * torch.eye(len(moments))) if level > 0 else None


def _components(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (descending, sum 1) and directions of the rows' space of a matrix."""
    values, vectors = torch.linalg.eigh(matrix @ matrix.T)
    values = values.flip(0).clamp_min(0)
    return values / values.sum().clamp_min(torch.finfo(torch.float64).tiny), vectors.flip(1)


# ------------------------------------------------------------------------------------------------------------------- ranks


@dataclass(eq=False)
class Chosen:
    """How far a layer has come: its ranks, or whole."""

    spectrum: Spectrum
    ranks: list[int]
    whole: bool = False
    closed: set[int] = field(default_factory=set[int])
    """Which of its ranks the budget cannot raise."""

    def cost(self, places: Positions) -> float:
        """Weights of its factors times the positions that each is used at."""
        outputs, inputs, kernel = self.spectrum.weight.shape
        if self.whole:
            return outputs * inputs * kernel * places.outputs
        if len(self.ranks) == 1:
            return self.ranks[0] * (inputs + outputs) * places.outputs
        to, of = self.ranks
        return inputs * of * places.inputs + (of * kernel + outputs) * to * places.outputs

    def raised(self, side: int, places: Positions) -> tuple[Chosen, float] | None:
        """With one more component, or whole where that costs no more, and the energy gained; None where there is none."""
        energies = self.spectrum.energies
        if self.whole or side in self.closed or self.ranks[side] >= len(energies[side]):
            return None
        ranks = list(self.ranks)
        ranks[side] += 1
        more = Chosen(self.spectrum, ranks, closed=self.closed)
        whole = Chosen(self.spectrum, ranks, whole=True)
        if more.cost(places) >= whole.cost(places) or all(
            rank == len(of_side) for rank, of_side in zip(ranks, energies, strict=True)
        ):
            return whole, sum(float(of_side[rank:].sum()) for rank, of_side in zip(self.ranks, energies, strict=True))
        return more, float(energies[side][self.ranks[side]])


def allocated(
    spectra: Sequence[Spectrum],
    places: Mapping[str, Positions],
    rest: float,
    limit: float,
    *,
    budget: Budget,
    where: str,
) -> list[LayerRanks]:
    """Ranks for the layers: from 1 up, the next component always where it keeps most of its layer's energy for its cost.

    Parameters
    ----------
    places
        Path → what each weight of a layer costs, by the positions it is used at.
    rest
        What all else costs.
    limit
        What the network may cost, in the same unit.

    Returns
    -------
    list of ranks
        Of the layers that are factorised; the others stay whole.

    Raises
    ------
    DomainError
        Rank 1 everywhere is not little enough; the message has the smallest cost there is.
    """
    chosen = {spectrum.path: spectrum.least for spectrum in spectra}
    for path, least in chosen.items():
        whole = Chosen(least.spectrum, least.ranks, whole=True)
        if whole.cost(places[path]) <= least.cost(places[path]):
            chosen[path] = whole
    cost = rest + sum(choice.cost(places[path]) for path, choice in chosen.items())
    if cost > limit:
        unit = limit / budget.limit
        raise DomainError(
            f"the budget {budget.kind} = {shown(budget.limit, budget)} is out of reach: the smallest is {shown(cost / unit, budget)}; "
            f"{rest / cost:.0%} of that is in what is not factorised",
            where=where,
            hint="allow more, or skip fewer layers",
        )
    steps = {path: _steps(choice, places[path]) for path, choice in chosen.items()}
    while True:
        candidates = [(ratio, path, side) for path, options in steps.items() for side, ratio in options.items()]
        if not candidates:
            break
        _, path, side = max(candidates, key=lambda entry: entry[0])
        before, after = chosen[path], chosen[path].raised(side, places[path])
        if after is None:
            continue
        more = after[0].cost(places[path]) - before.cost(places[path])
        if cost + more <= limit:
            cost, chosen[path] = cost + more, after[0]
        else:
            before.closed.add(side)
        steps[path] = _steps(chosen[path], places[path])
    return [
        LayerRanks(
            path=path,
            outputs=choice.ranks[0],
            inputs=choice.ranks[1] if len(choice.ranks) > 1 else None,
        )
        for path, choice in chosen.items()
        if not choice.whole
    ]


def _steps(chosen: Chosen, places: Positions) -> dict[int, float]:
    """Which of a layer's ranks can be raised, and the energy that it keeps for its cost."""
    now, ratios = chosen.cost(places), dict[int, float]()
    for side in range(len(chosen.ranks)):
        after = chosen.raised(side, places)
        if after is not None:
            more = after[0].cost(places) - now
            ratios[side] = after[1] / more if more > 0 else math.inf
    return ratios


# ----------------------------------------------------------------------------------------------------------------- factors


def set_factors(factors: nn.Sequential, spectrum: Spectrum, ranks: LayerRanks, *, sweeps: int) -> None:
    """Give the layers that stand for one its factors: the best for one rank, for two those of `sweeps` of alternation (HOOI)."""
    tensors = _matrices(spectrum, ranks.outputs) if ranks.inputs is None else _tucker(spectrum, ranks, sweeps)
    with torch.no_grad():
        for part, tensor in zip(factors, tensors, strict=True):
            weight = cast("Factorable", part).weight
            weight.copy_(tensor.reshape(weight.shape))
        bias = cast("Tensor | None", spectrum.layer.bias)
        if bias is not None:
            cast("Tensor", factors[-1].bias).copy_(bias)


def _matrices(spectrum: Spectrum, rank: int) -> tuple[Tensor, Tensor]:
    """A and B, each component of equal norm in both."""
    matrix, basis = spectrum.weight.squeeze(2), spectrum.bases[0][:, :rank]
    if matrix.shape[1] < matrix.shape[0]:
        first, last = basis.T, matrix @ basis
    else:
        first, last = basis.T @ matrix, basis
    first = _unwhitened(first, spectrum)
    scale = (last.norm(dim=0) / first.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    return first * scale[:, None], last / scale


def _tucker(spectrum: Spectrum, ranks: LayerRanks, sweeps: int) -> tuple[Tensor, Tensor, Tensor]:
    weight = spectrum.weight
    to, of = spectrum.bases[0][:, : ranks.outputs], spectrum.bases[1][:, : ranks.inputs]
    for _ in range(sweeps):
        to = _components(torch.einsum("oik,ir->ork", weight, of).flatten(1))[1][:, : ranks.outputs]
        of = _components(torch.einsum("oik,or->irk", weight, to).flatten(1))[1][:, : ranks.inputs]
    core = torch.einsum("oik,or,is->rsk", weight, to, of)
    return _unwhitened(of.T, spectrum), core, to


def _unwhitened(first: Tensor, spectrum: Spectrum) -> Tensor:
    """First · S⁻¹, of shape (rank, inputs)."""
    return (
        first if spectrum.root is None else torch.linalg.solve_triangular(spectrum.root, first, upper=False, left=False)
    )

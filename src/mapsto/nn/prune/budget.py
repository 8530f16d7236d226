"""How small a pruned network must be, and which channels go: the least important of all, one by one, until the budget is met.

The cost falls with every channel that goes, so the number of channels is found by bisection. This file imports neither torch
nor NumPy before there is work to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from mapsto.discovery import name_of
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Frozen
from mapsto.nn.export.registry import RuntimeName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "RANKING",
    "Budget",
    "Budgeted",
    "Limits",
    "Missed",
    "Ranking",
    "Sized",
    "best",
    "missed",
    "places",
    "search",
    "shown",
]


Kind: TypeAlias = Literal["macs", "parameters", "bytes", "latency_ms", "heads"]
"""What is counted."""


Ranking: TypeAlias = Literal["measured", "global", "per_peak", "per_layer", "per_cost"]
RANKING = (
    "`global` compares channels of all layers; `per_peak` so, in units of the largest of each layer; `per_layer` takes the same share of "
    "each layer; `per_cost` compares importance per unit of the budget that a channel saves (of `latency_ms`: per multiply-accumulate), "
    "so that dear channels go first; `measured` tries these four and keeps what answers most like the original, on calibration batches "
    "or without data on made-up inputs."
)
"""What the field `ranking` says of itself."""


@dataclass(frozen=True)
class Budget:
    """One limit on what a pruned network costs."""

    kind: Kind
    limit: float
    """A share of the original's, or bytes, or milliseconds."""
    unit: Literal["share", "bytes", "ms"] = "share"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What keeps a layer from being emptied."""

    min_channels: int = 1
    max_prune: float = 1.0
    multiple_of: int = 1

    def kept(self, wanted: int, channels: int, whole: int | None = None) -> int:
        """How many of `channels` stay where `wanted` should, of `whole` that there were before any pruning.

        >>> Limits(min_channels=2, multiple_of=8).kept(9, 64), Limits(max_prune=0.5).kept(0, 64)
        (16, 32)
        >>> Limits(max_prune=0.5).kept(0, 40, whole=64)
        32
        """
        floor = max(self.min_channels, _ceil((1 - self.max_prune) * (whole or channels)))
        rounded = -(-max(wanted, floor) // self.multiple_of) * self.multiple_of
        return min(rounded, channels)


def _ceil(value: float) -> int:
    """The next whole number, forgiving the last digits of a product."""
    return -int(-(value - 1e-9) // 1)


class Sized(Frozen):
    """A budget that shapes alone decide: exactly one of the three is given."""

    macs: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Multiply-accumulates of one sample, as a share of the original's, 0 to 1.",
    )
    parameters: float | None = Field(
        default=None, gt=0, le=1, description="Number of parameters, as a share of the original's, 0 to 1."
    )
    bytes: float | None = Field(
        default=None,
        gt=0,
        description="Size of all tensors in their own dtype: up to 1 a share of the original's, above it bytes.",
    )

    def __post_init__(self) -> None:
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """The one budget. Raises `SpecError` for none or several."""
        limits = self._limits()
        named: dict[Kind, float] = {kind: limit for kind, limit in limits.items() if limit is not None}
        if len(named) != 1:
            raise SpecError(
                f"{'no budget is' if not named else ' and '.join(named) + ' are'} given",
                where=name_of(type(self)),
                hint=f"give exactly one of {', '.join(limits)}, as in macs=0.25",
            )
        ((kind, limit),) = named.items()
        unit = "ms" if kind == "latency_ms" else "bytes" if kind == "bytes" and limit > 1 else "share"
        return Budget(kind, limit, unit)

    def _limits(self) -> dict[Kind, float | None]:
        """Every budget that there is to give."""
        return {"macs": self.macs, "parameters": self.parameters, "bytes": self.bytes}


class Budgeted(Sized):
    """The fields of every mapping that prunes channels to a budget; exactly one of the four budgets is given."""

    latency_ms: float | None = Field(
        default=None,
        gt=0,
        description="Time of one sample in `runtime` on one thread of this machine, milliseconds (median).",
    )
    runtime: RuntimeName = Field(
        default="onnxruntime",
        description="What `latency_ms` is measured in; all but ONNX Runtime come with the extra `edge`.",
    )
    ranking: Ranking = Field(default="global", description=RANKING)
    min_channels: int = Field(default=1, ge=1, description="Channels that every layer keeps.")
    max_prune: float = Field(
        default=1.0, gt=0, le=1, description="Largest share of a layer's channels that goes, 0 to 1."
    )
    multiple_of: int = Field(
        default=1,
        ge=1,
        description="Kept channels are rounded up to a multiple of it; integer kernels like 4, 8 or 16.",
    )
    prune_embedding: bool = Field(
        default=False,
        description="Whether a learner's embedding may become narrower; the output of a classifier never changes.",
    )
    padded: bool = Field(
        default=False,
        description=(
            "Whether channels may go, too, that a shortcut pads with zeros; without training afterwards they cost more than others, which "
            "is warned of. With `ranking: measured` they go only where the answers stay nearer to the original's so."
        ),
    )

    def _limits(self) -> dict[Kind, float | None]:
        return {**super()._limits(), "latency_ms": self.latency_ms}

    @property
    def settings(self) -> Budgeted:
        """These fields, as a criterion gives them."""
        return self

    @property
    def limits(self) -> Limits:
        """What every layer keeps."""
        return Limits(min_channels=self.min_channels, max_prune=self.max_prune, multiple_of=self.multiple_of)


def search(
    scores: Mapping[str, NDArray[np.float64]],
    cost: Callable[[Mapping[str, NDArray[np.bool_]]], float],
    budget: Budget,
    *,
    ranking: Literal["global", "per_layer"] = "global",
    limits: Limits | None = None,
    whole: Mapping[str, int] | None = None,
    where: str = "prune",
    hint: str = "allow more, or lower min_channels or multiple_of, or raise max_prune",
    left: str = "",
) -> dict[str, NDArray[np.bool_]]:
    """Which channels stay so that the cost is within the budget and the sum of what goes is small.

    Parameters
    ----------
    scores
        Group → importance of each of its channels, shape (channels,); comparable between groups if `ranking` is global.
    cost
        Masks → what the network so pruned costs, in the budget's unit; called about log2(all channels) times.
    limits
        What every group keeps; by default one channel.
    whole
        Group → its channels before any pruning, which `limits` are shares of; by default those it has.
    hint
        What to do where the budget is out of reach.
    left
        What stays whole whatever the limits are, for the message then.

    Returns
    -------
    dict of masks
        Group → which channels stay, shape (channels,), bool.

    Raises
    ------
    DomainError
        Even what `limits` lets go is not enough; the message has the smallest cost there is.

    >>> import numpy as np
    >>> scores = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([0.5, 4.0])}
    >>> kept = search(scores, lambda masks: sum(map(np.sum, masks.values())) / 5, Budget("parameters", 0.6))
    >>> {name: mask.astype(int).tolist() for name, mask in kept.items()}
    {'a': [1, 0, 1], 'b': [0, 1]}
    """
    limits = limits or Limits()
    turns = _turns(scores, ranking)
    before = whole or {}

    def masks(gone: int) -> dict[str, NDArray[np.bool_]]:
        """The masks once the turn of so many channels has come."""
        wanted = {name: int((turn >= gone).sum()) for name, turn in turns.items()}
        counts = {name: limits.kept(n, len(scores[name]), before.get(name)) for name, n in wanted.items()}
        return {name: best(scores[name], count) for name, count in counts.items()}

    low, high = 0, sum(map(len, scores.values()))
    if cost(masks(low)) <= budget.limit:
        return masks(low)
    least = cost(masks(high))
    if least > budget.limit:
        raise DomainError(
            f"the budget {budget.kind} = {shown(budget.limit, budget)} is out of reach: "
            f"the smallest is {shown(least, budget)}{f'; {left}' if left else ''}",
            where=where,
            hint=hint,
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(masks(middle)) <= budget.limit else (middle, high)
    return masks(high)


def _turns(scores: Mapping[str, NDArray[np.float64]], ranking: str) -> dict[str, NDArray[np.int64]]:
    """When the turn of each channel to go comes, from 0; of equals in the order of the layers."""
    import numpy as np

    levels = np.concatenate([values if ranking == "global" else places(values) for values in scores.values()])
    turns = np.empty(len(levels), np.int64)
    turns[np.argsort(levels, kind="stable")] = np.arange(len(levels))
    ends = np.cumsum([len(values) for values in scores.values()])
    return dict(zip(scores, np.split(turns, ends[:-1]), strict=True))


def places(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place of each value among them, 0 to 1."""
    import numpy as np

    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = (np.arange(len(values)) + 0.5) / len(values)
    return places


def best(values: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Which channels are the `count` best, the earlier ones of equals, shape (channels,)."""
    import numpy as np

    kept = np.zeros(len(values), np.bool_)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return kept


_TOLERANCE, _OVERSHOOT = 1.005, 0.8
_NOISE = 1.25
"""Times differ so much from one measurement to the next."""


@dataclass(frozen=True)
class Missed:
    """A budget that a step did not keep to."""

    above: bool
    """Whether the network costs more than was asked for, or far less."""
    text: str


def missed(budget: Budget, reached: float, *, cut: bool = True) -> Missed | None:
    """What to tell of a network that costs `reached`, in the budget's unit; None where it is as asked, or nothing was `cut`.

    >>> missed(Budget("macs", 0.5), 0.49), missed(Budget("macs", 0.5), 0.25).text
    (None, 'asked for macs = 0.5, got 0.25: far less than needed, as what goes, goes in whole groups')
    >>> missed(Budget("bytes", 50_000, "bytes"), 60_000).above
    True
    """
    asked = f"asked for {budget.kind} = {shown(budget.limit, budget)}, got {shown(reached, budget)}"
    if reached > (_NOISE if budget.unit == "ms" else _TOLERANCE) * budget.limit:
        return Missed(
            True, f"the budget is not met: {asked}; ask for less, or prune what stays whole by another mapping"
        )
    if cut and reached < _OVERSHOOT * budget.limit:
        return Missed(False, f"{asked}: far less than needed, as what goes, goes in whole groups")
    return None


def shown(value: float, budget: Budget) -> str:
    """A cost in the budget's unit, for people."""
    return {"share": f"{value:.4g}", "bytes": f"{value:,.0f} bytes", "ms": f"{value:.3g} ms"}[budget.unit]

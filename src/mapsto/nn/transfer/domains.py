"""The two domains: labelled samples of the source, samples of the target whose labels are never read, and a few of it that have some."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import Field

from mapsto.data.checks import require_classes, require_finite, require_some
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Frozen, Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.network.dense_outputs import refuse_dense
from mapsto_runtime.preprocessing.texts import joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context

__all__ = ["UNLABELLED", "DomainFields", "Domains", "domains_of", "target_of"]

UNLABELLED: Final = {"subset": {"data": {"digits": {"size": 16}}, "per_class": 5, "seed": 1}}
"""A target for contract tests."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Domains:
    """The opened data."""

    source: Samples
    target: NDArray[Any]
    """Raw samples (M, ...)."""
    labelled: Samples | None
    """Of the target; None where there are no labels."""

    @property
    def shared(self) -> bool:
        """Whether the labelled samples of the target, where there are any, are of the source's classes."""
        return self.labelled is None or set(self.labelled.classes) <= set(self.source.classes)

    def require_labelled(self) -> Samples:
        """The labelled samples of the target. Raises `DomainError` where there are none."""
        if self.labelled is None:
            raise DomainError("there are no labelled samples of the target", hint="give labelled")
        return self.labelled

    def renumbered(self) -> Samples:
        """The labelled samples, of shared classes, with the source's numbers."""
        few = self.require_labelled()
        numbers = np.array([self.source.classes.index(name) for name in few.classes])
        return dataclasses.replace(few, labels=numbers[few.labels], classes=self.source.classes)


class DomainFields(Frozen):
    """The fields of every mapping from one domain to another."""

    source: DataSource = Field(description="The labelled samples that are learnt from, one class each.")
    target: DataSource = Field(
        description="Samples of the domain that the network is for; their labels are never read."
    )
    labelled: DataSource | None = Field(
        default=None,
        description=(
            "A few labelled samples of the target, for the head alone. Of the source's classes they are learnt from beside the source; of "
            "others the network answers with these."
        ),
    )


def domains_of(value: Network, fields: DomainFields, ctx: Context, *, where: str) -> Domains:
    """The data of the fields, checked.

    Raises
    ------
    DataError
        A source or labelled samples of fewer than two classes or with an empty one, no target, NaN, or samples of different kinds.
    DomainError
        The network gives an answer for each place in a sample.
    """
    refuse_dense(value.signature, where=where)
    source = _labelled(fields.source, ctx, f"{where}: source")
    target = ctx.dataset(fields.target)
    few = None if fields.labelled is None else _labelled(fields.labelled, ctx, f"{where}: labelled")
    parts = [source.inputs, target.inputs, *([] if few is None else [few.inputs])]
    if source.preprocessing.kind == "text" and len({part.shape[1:-1] for part in parts}) == 1:
        together = joined(parts, source.preprocessing.padding)
        parts = np.split(together, np.cumsum([len(part) for part in parts])[:-1])
    for part, name in zip(parts[1:], ("target", "labelled"), strict=False):
        if (part.shape[1:], part.dtype) != (parts[0].shape[1:], parts[0].dtype):
            raise DataError(
                f"samples of shape {part.shape[1:]}, {part.dtype}; those of the source are of shape {parts[0].shape[1:]}, {parts[0].dtype}",
                where=f"{where}: {name}",
                hint="give samples of the same size, channels and columns",
            )
    _checked(target, f"{where}: target")
    return Domains(
        source=_with_inputs(source, parts[0]),
        target=parts[1],
        labelled=None if few is None else _with_inputs(few, parts[2]),
    )


def target_of(data: DataSource, ctx: Context, *, where: str) -> NDArray[Any]:
    """The inputs (M, ...) of a target, M at least 2. Raises `DataError` for fewer, or NaN."""
    return _checked(ctx.dataset(data), where).inputs


def _checked(samples: Samples, where: str) -> Samples:
    require_finite(require_some(samples, where=where).inputs, where=where)
    if len(samples) < 2:
        raise DataError("there is one sample, which says nothing of how samples differ", where=where, hint="give more")
    if bool((samples.inputs == samples.inputs[:1]).all()):
        raise DataError(
            f"all {len(samples)} samples are the same, which says nothing of how samples differ",
            where=where,
            hint="look at what is read there, and give samples that differ",
        )
    return samples


def _labelled(data: DataSource, ctx: Context, where: str) -> Samples:
    samples = require_some(ctx.dataset(data), where=where)
    require_classes(samples, where=where)
    require_classes(samples, at_least=len(samples.classes), where=where)
    require_finite(samples.inputs, where=where)
    return samples


def _with_inputs(samples: Samples, inputs: NDArray[Any]) -> Samples:
    return samples if inputs is samples.inputs else dataclasses.replace(samples, inputs=inputs)

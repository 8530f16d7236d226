"""Augmentations of samples that are learnt from: as JSON in a model's fields, and drawn anew each time a sample is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from pydantic import TypeAdapter

from mapsto.data.augment import Augmentation, Augmentations, refuse_mixing
from mapsto.errors import SpecError
from mapsto.kinds import Json

__all__ = ["nodes_of", "operations_of", "refuse_unfit"]


def nodes_of(operations: Sequence[Augmentation]) -> list[Json]:
    """Operations as a recipe writes them.

    >>> from mapsto import augment
    >>> nodes_of([augment.crop(padding=2)])[0]["crop"]["padding"]
    2
    """
    return [{each.name: cast("Json", _plain(dataclasses.asdict(cast("Any", each))))} for each in operations]


def operations_of(nodes: Any) -> tuple[Augmentation, ...]:
    """The operations of `nodes_of`."""
    adapter: TypeAdapter[tuple[Augmentation, ...]] = TypeAdapter(Augmentations)
    return adapter.validate_python(list(nodes))


def refuse_unfit(operations: Sequence[Augmentation], *, where: str) -> None:
    """Raises `SpecError` for operations that mix samples, or are not for images."""
    refuse_mixing(operations, "each sample of a stream is learnt with its own label", where=where, by_class=True)
    for each in operations:
        if "images" not in each.on:
            raise SpecError(
                f"field 'augment': {each.name} is for {' and '.join(each.on)}, and here only images are changed",
                where=where,
                hint="leave it out",
            )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return value

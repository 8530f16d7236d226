"""A data set as a recipe writes it, outside a recipe."""

from __future__ import annotations

from typing import Any, cast

from mapsto.errors import SpecError
from mapsto.kinds import Dataset

__all__ = ["data_set"]


def data_set(node: dict[str, Any], *, where: str) -> Dataset:
    """The data set of ``{name: fields}``, whose fields may be data sets again. Raises `SpecError` for what is none, as tasks are not."""
    import yaml

    from mapsto.recipe.reader import parse_recipe

    tree = {"schema": 1, "data": {"it": node}, "steps": [{"networks.mlp": {"data": "$it"}}]}
    found = cast("dict[str, Any]", parse_recipe(yaml.safe_dump(tree), where=where).data)["it"]
    if not isinstance(found, Dataset):
        raise SpecError(
            f"'{next(iter(node))}' gives tasks or a stream, not labelled samples",
            where=where,
            hint="name the data set that it draws from",
        )
    return found

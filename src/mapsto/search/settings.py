"""The section ``search`` of a recipe, and what a command says in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from mapsto.errors import SpecError, nearest
from mapsto.recipe.goals import checked_goal
from mapsto.search.goals import Goals, Limit, Objective

if TYPE_CHECKING:
    from mapsto.search.space import Space

__all__ = ["Halving", "SearchSettings", "findings_of", "settings_of"]

Goal = Annotated[str, pydantic.AfterValidator(checked_goal)]


class _Objective(pydantic.BaseModel):
    """A metric to be as high or as low as it can be."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    metric: str
    goal: Literal["maximize", "minimize"]
    limit: Goal | None = None


class _Limit(pydantic.BaseModel):
    """A bound that a metric has to keep."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    metric: str
    limit: Goal


class Halving(pydantic.BaseModel):
    """Successive halving: a trial's training is stopped at a rung where it is not among the best."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    step: str = pydantic.Field(description="the label of the step that trains")
    metric: str = pydantic.Field("val_loss", description="a metric of that step's log")
    goal: Literal["maximize", "minimize"] = pydantic.Field("minimize", description="maximize or minimize")
    rungs: int | list[int] = pydantic.Field(2, description="how many, or a list of items after which they are")
    eta: int = pydantic.Field(3, ge=2, le=10, description="of so many at a rung one goes on, 2 to 10")


class SearchSettings(pydantic.BaseModel):
    """How the holes of a recipe are filled."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    objectives: list[_Objective] = pydantic.Field(
        [], description="a list of {metric, goal: maximize or minimize, limit}"
    )
    limits: list[_Limit] = pydantic.Field([], description="a list of {metric, limit: '<= 0.5'}")
    holes: dict[str, Any] = pydantic.Field({}, description="name → {choice: […]} or {range: [low, high]}")
    sampler: Literal["tpe", "nsga2", "random", "grid", "evolution"] | None = pydantic.Field(
        None, description="tpe, nsga2, random, grid or evolution"
    )
    trials: int = pydantic.Field(30, ge=1, le=100_000, description="a whole number from 1")
    minutes: float | None = pydantic.Field(None, gt=0, allow_inf_nan=False, description="a number above 0")
    halving: Halving | None = pydantic.Field(None, description="{step, metric, goal, rungs, eta}")

    @property
    def goals(self) -> Goals:
        """Its objectives and limits."""
        bounds = [Limit(metric=each.metric, goal=each.limit) for each in self.objectives if each.limit is not None]
        return Goals(
            objectives=tuple(Objective(metric=each.metric, goal=each.goal) for each in self.objectives),
            limits=(*bounds, *(Limit(metric=each.metric, goal=each.limit) for each in self.limits)),
        )


def settings_of(space: Space, given: Mapping[str, Any] | None = None) -> SearchSettings:
    """The settings of a space's recipe, with those that are `given` in their place. Raises `SpecError` with all errors and their places."""
    try:
        return SearchSettings.model_validate(_entries(space, given))
    except pydantic.ValidationError:
        found = findings_of(space, given)
        lines = [f"{space.where}:{line}:{column}: {message}" for line, column, message in found]
        raise SpecError(lines[0] if len(lines) == 1 else f"{len(lines)} errors\n" + "\n".join(lines)) from None


def findings_of(space: Space, given: Mapping[str, Any] | None = None) -> list[tuple[int, int, str]]:
    """Line, column and text of every error that `settings_of` would raise."""
    try:
        SearchSettings.model_validate(_entries(space, given))
    except pydantic.ValidationError as error:
        return sorted({_finding(space, finding) for finding in error.errors(include_url=False)})
    return []


def _entries(space: Space, given: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**space.search, **{key: value for key, value in (given or {}).items() if value is not None}}


def _finding(space: Space, finding: Any) -> tuple[int, int, str]:
    place = tuple(finding["loc"])
    line, column = space.position(("search", *place))
    name, fields = str(place[0]), SearchSettings.model_fields
    if finding["type"] == "extra_forbidden":
        known = {"objectives": _Objective, "limits": _Limit, "halving": Halving}.get(name, SearchSettings).model_fields
        text = f"search: unknown entry '{place[-1]}' ({nearest(str(place[-1]), known)})"
    elif finding["type"] == "goal":
        text = f"search: {finding['msg']}"
    else:
        inner = Halving.model_fields.get(str(place[1])) if name == "halving" and len(place) > 1 else None
        described = (inner or fields[name]).description
        got = "" if finding["type"] == "missing" else f", got {finding['input']!r}"
        text = f"search: {'.'.join(map(str, place))}: {described}{got}"
    return line, column, text[:240]

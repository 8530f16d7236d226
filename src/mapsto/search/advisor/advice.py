"""Which recipes to try on data, what they will come to, and on which past runs that leans: what ``mapsto advise`` says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mapsto import discovery
from mapsto.errors import DataError, SpecError, nearest
from mapsto.kinds import Dataset
from mapsto.search.advisor import features as task_features
from mapsto.search.advisor import space
from mapsto.search.advisor.beliefs import Beliefs
from mapsto.search.advisor.goal import Goal
from mapsto.search.advisor.runs import Outcome, Runs, Task, keys, merged
from mapsto.search.advisor.space import Kind
from mapsto.search.advisor.surrogate import COVERAGE, Lean, Surrogate, default_recipe
from mapsto.store import Store

__all__ = [
    "Advice",
    "Asked",
    "Proposal",
    "advice",
    "asked",
    "described",
    "examples_of",
    "keep",
    "kept_runs",
    "kind_of",
    "known_runs",
    "tree_of",
]

FOLDS = 5
"""Of the examples a fifth is held out, and recipes are judged on it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The data that advice is asked on."""

    kind: Kind
    data: Mapping[str, Any]
    """As a recipe writes them: of a stream ``events``, else ``examples`` and ``validation``."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One recipe, and what it is thought to come to."""

    holes: dict[str, str]
    accuracy: float
    """Percent, with both ends of the interval of 90 %."""
    low: float
    high: float
    bytes: float
    points: float
    """Beyond those of the default recipe."""
    surer: float
    """How likely it is better than the default recipe, in [0, 1]."""
    leans: list[Lean]


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Proposals, the best first."""

    asked: Asked
    task: Task
    goal: Goal
    proposals: list[Proposal]
    default: dict[str, str]
    known: int
    """Tasks of that kind that are known."""
    alike: float
    """Distance from the nearest known task, 1 where it begins to be unlike all."""
    nearest: str
    trials: int
    """Runs on this very task that have been learnt from."""
    missing: Mapping[str, str]

    @property
    def unlike(self) -> bool:
        return self.alike > 1.0

    def recipe(self, number: int = 0) -> str:
        """A proposal as a recipe."""
        holes = self.proposals[number].holes
        return space.recipe(self.asked.kind, holes, self.asked.data, export=self.asked.kind != "stream")


def asked(node: Mapping[str, Any], *, stream: bool = False) -> Asked:
    """Data as a recipe writes them, with a fifth held out, and which kind they are of.

    Raises `SpecError` where there is no advice on them.
    """
    ((name, fields),) = node.items()
    if stream:
        return Asked(kind="stream", data={"events": dict(node)})
    kind = _kind(name, cast("Mapping[str, Any]", fields))
    fold = {"folds": FOLDS, "number": 0}
    parts = {
        "examples": {"fold": {"data": "$all", **fold}},
        "validation": {"fold": {"data": "$all", **fold, "part": "judge"}},
    }
    return Asked(kind=kind, data={"all": dict(node), **parts})


def _kind(name: str, fields: Mapping[str, Any]) -> Kind:
    of_name: dict[str, Kind] = {"images": "images", "text": "texts", "table": "table"}
    if name in of_name:
        return of_name[name]
    return kind_of(discovery.find("data", name)(**fields))


def kind_of(data: Dataset) -> Kind:
    """Which kind of data a data set holds."""
    samples = data.open()
    of_inputs: dict[str, Kind] = {"image": "images", "text": "texts"}
    if samples.inputs.dtype.kind in "UO":
        return "texts"
    if samples.preprocessing.kind in of_inputs:
        return of_inputs[samples.preprocessing.kind]
    if samples.inputs.ndim != 2:
        raise SpecError(
            f"there is no advice on inputs of shape {samples.inputs.shape[1:]}",
            where="mapsto advise",
            hint="give images, texts, rows of a table, or a stream",
        )
    return "table"


def described(
    question: Asked, *, store: Store | None = None, name: str = "", train: bool = False
) -> tuple[Task, Mapping[str, str]]:
    """The task of data, with its features, and which networks were not asked and why. Raises `DataError` for data to learn nothing from."""
    if question.kind == "stream":
        ((kind, fields),) = question.data["events"].items()
        stream = discovery.find("streams", kind)(**fields)
        found = task_features.of_stream(stream)
        fingerprint = stream.fingerprint() if stream.bounded else stream.identity()
    else:
        data = examples_of(question.data)
        found = task_features.of_dataset(data, question.kind, store=store, train=train)
        fingerprint = data.fingerprint()
    task = Task(
        id=task_features.task_id(fingerprint), name=name, domain=name, kind=question.kind, features=found.values
    )
    return task, found.missing


def examples_of(data: Mapping[str, Any]) -> Dataset:
    """The data set ``examples`` of a recipe's data, built of those that it refers to."""

    def built(node: Any) -> Any:
        if isinstance(node, str) and node.startswith("$"):
            return built(data[node[1:]])
        ((kind, fields),) = ((node, {}),) if isinstance(node, str) else node.items()
        known = {key: built(value) if key == "data" else value for key, value in (fields or {}).items()}
        return discovery.find("data", kind)(**known)

    if "examples" not in data:
        raise DataError("the recipe has no data called 'examples'", where="mapsto advise")
    return built("$examples")


def advice(
    question: Asked,
    task: Task,
    runs: Runs,
    *,
    goal: Goal | None = None,
    count: int = 5,
    model: str | None = None,
    missing: Mapping[str, str] | None = None,
) -> Advice:
    """What to try.

    Parameters
    ----------
    task
        Of the data; runs on it that are among `runs` are its own trials, and bring the advice up to date.
    model
        The option of the hole ``network`` to keep to.

    Raises
    ------
    DataError
        No run of this kind of data is known.
    SpecError
        There is no such model, or no known recipe keeps the limit.
    """
    goal, missing = goal or Goal(), missing or {}
    surrogate = Surrogate([each for each in runs.of(task.kind) if each.id != task.id], goal)
    prediction = surrogate.predict(task.features)
    own = next((each for each in runs.tasks if each.id == task.id), None)
    beliefs = Beliefs.of(surrogate, prediction)
    tried = _observed(beliefs, own, goal)
    fits = _fitting(surrogate, prediction.size, goal, model, missing)
    mean, covariance = beliefs.posterior()
    default = default_recipe(surrogate.tasks, goal)
    worth = np.where(fits, mean, -np.inf)
    order = [int(at) for at in np.argsort(-worth, kind="stable") if fits[at]]
    if not order:
        raise SpecError(
            f"no known recipe keeps the limit: the smallest comes to {prediction.size.min():.3g} bytes",
            where="--limit",
            hint="raise it",
        )
    if tried:
        first = beliefs.next()
        order = [at for at in [first, *[at for at in order if at != first]] if at not in tried and fits[at]] or order
    spread = np.sqrt(np.maximum(np.diag(covariance) + covariance[default, default] - 2 * covariance[default], 1e-12))
    proposals = [
        Proposal(
            holes=dict(surrogate.encoding.recipes[at]),
            accuracy=float(prediction.accuracy[at]),
            low=float(prediction.low[at]),
            high=float(prediction.high[at]),
            bytes=float(prediction.size[at]),
            points=float(mean[at] - mean[default]),
            surer=0.5
            if at == default
            else 0.5 * (1 + math.erf((mean[at] - mean[default]) / spread[at] / math.sqrt(2))),
            leans=surrogate.leans(prediction, at),
        )
        for at in order[:count]
    ]
    return Advice(
        asked=question,
        task=task,
        goal=goal,
        proposals=proposals,
        default=dict(surrogate.encoding.recipes[default]),
        known=len(surrogate.tasks),
        alike=prediction.alike,
        nearest=prediction.nearest.name or prediction.nearest.id,
        trials=len(tried),
        missing=missing,
    )


def _observed(beliefs: Beliefs, own: Task | None, goal: Goal) -> set[int]:
    """Tell what has been tried on the task itself: what was seen of it on the held-out examples."""
    if own is None or not own.runs:
        return set()
    points = goal.of(own.accuracy("validation"), own.bytes())
    found: set[int] = set()
    for at, key in enumerate(keys(own.kind)):
        if key in own.runs and np.isfinite(points[at]):
            run = own.runs[key]
            beliefs.observe(
                at,
                float(points[at]),
                accuracy=50.0 if run.validation is None else run.validation,
                count=run.validation_n,
            )
            found.add(at)
    return found


def _fitting(
    surrogate: Surrogate, size: NDArray[np.float64], goal: Goal, model: str | None, missing: Mapping[str, str]
) -> NDArray[np.bool_]:
    """Which recipes keep the limit, begin with the model that was asked for, and with one that can read the data."""
    known = space.holes_of(surrogate.kind).get("network", ())
    if model is not None and model not in known:
        there = nearest(model, known) if known else "recipes of this kind of data have no choice of a network"
        raise SpecError(f"there is no advice on a network '{model}'", where="--model", hint=there)
    recipes = surrogate.encoding.recipes
    return np.array(
        [
            (goal.most_bytes is None or size[at] <= goal.most_bytes)
            and (model is None or each["network"] == model)
            and missing.get(each.get("network", ""), task_features.NOT_TRAINED) == task_features.NOT_TRAINED
            for at, each in enumerate(recipes)
        ]
    )


def tree_of(advised: Advice) -> dict[str, Any]:
    """As JSON."""
    return {
        "kind": advised.asked.kind,
        "objective": advised.goal.text,
        "known_tasks": advised.known,
        "trials": advised.trials,
        "nearest": advised.nearest,
        "distance": round(advised.alike, 3),
        "unlike": advised.unlike,
        "default": advised.default,
        "missing": dict(advised.missing),
        "features": {name: float(f"{value:.6g}") for name, value in advised.task.features.items()},
        "proposals": [
            {
                "holes": each.holes,
                "accuracy": round(each.accuracy, 2),
                "low": round(each.low, 2),
                "high": round(each.high, 2),
                "coverage": COVERAGE,
                "bytes": round(each.bytes),
                "points_above_default": round(each.points, 2),
                "better_than_default": round(each.surer, 3),
                "leans_on": [
                    {
                        "task": lean.task.name or lean.task.id,
                        "recipe": keys(advised.asked.kind)[lean.recipe],
                        "weight": round(lean.weight, 4),
                    }
                    for lean in each.leans
                ],
            }
            for each in advised.proposals
        ],
    }


def kept_runs(store: Store) -> Path:
    """Where the runs that were learnt from are kept."""
    return store.root / "advisor" / "runs.json"


def keep(store: Store, lists: Sequence[Runs], runs: Sequence[tuple[Task, str, Outcome]]) -> Runs:
    """Add lists, and runs as task, recipe and outcome, to the store's own list, and give that; several processes may at once."""
    path = kept_runs(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        own = merged([known_runs(store), *lists])
        for task, key, outcome in runs:
            own = own.with_run(task, key, outcome)
        own.save(path)
    return own


def known_runs(store: Store) -> Runs:
    """The store's own list, which may be empty. Raises `DataError` for an own list that cannot be read."""
    from mapsto.search.advisor.runs import load

    path = kept_runs(store)
    if not path.is_file():
        return Runs()
    try:
        return load(path)
    except DataError as error:
        hint = "it is the store's own list: move it away, and learn from finished runs again"
        raise DataError(error.what, where=str(path), hint=hint) from error

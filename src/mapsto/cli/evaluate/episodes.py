"""How well a package's learner takes up classes that it never saw: mean accuracy over many small tasks drawn from the data.

Each sample is embedded once by the package; a task's head is made by the package's own map from examples to a head where it has one, else
by the means of the classes. ``mean ± 1.96 · s / √n`` over n tasks (Vinyals et al., "Matching Networks for One Shot Learning", 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mapsto.errors import DataError
from mapsto.kinds import Metric
from mapsto_runtime.runtimes.onnxruntime import session
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.predictor import Predictor

__all__ = ["on_unseen_tasks"]

_TASKS = 400
_WAYS, _QUERIES = 5, 15
_SHOTS = (1, 5)

_Head: TypeAlias = "Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]"


def on_unseen_tasks(
    predictor: Predictor, features: NDArray[np.float64], labels: Sequence[str], *, where: str
) -> dict[str, Any]:
    """Accuracy over tasks of up to 5 classes with 1 and 5 examples of each, as JSON with ``metrics``, ``episodes`` and ``adapted_by``.

    Raises `DataError` where no two classes have two samples or more.
    """
    names, numbers = np.unique(np.array(labels, object), return_inverse=True)
    counts = np.bincount(numbers)
    head, how = _head_of(predictor)
    metrics: dict[str, Any] = {}
    rows: list[list[Any]] = []
    for shots in _SHOTS:
        able = np.flatnonzero(counts > shots)
        if len(able) < 2:
            continue
        ways = min(_WAYS, len(able))
        queries = int(min(_QUERIES, counts[able].min() - shots))
        found = _accuracies(features, numbers, able, (ways, shots, queries), head)
        half = 1.959964 * float(found.std(ddof=1)) / len(found) ** 0.5
        metric = Metric(value=float(found.mean()), unit="%", ci95=half, n=len(found))
        metrics["accuracy" if not metrics else f"accuracy_{shots}_shot"] = vars(metric)
        rows.append([ways, shots, queries, len(found), {"value": metric.value, "ci95": half}])
    if not metrics:
        told = few([f"{short(str(name))}: {count}" for name, count in zip(names, counts.tolist(), strict=True)])
        raise DataError(
            f"no two classes have two samples or more ({told})",
            where=where,
            hint="give a learner two samples or more of two classes: one to learn from, one to judge by",
        )
    columns = ["ways", "shots", "queries", "tasks", "accuracy"]
    return {
        "kind": "embeddings",
        "adapted_by": how,
        "metrics": metrics,
        "episodes": {"columns": columns, "rows": rows, "units": {"accuracy": "%"}},
    }


def _head_of(predictor: Predictor) -> tuple[_Head, str]:
    """What makes a head (weight, bias) of features (S, D) and memberships (S, ways), and how it is called."""
    model = predictor.checked.adapting_model
    method = (predictor.manifest.get("adaptation") or {}).get("method")
    if model is None:
        return _class_means, "class means"
    opened = session(predictor.folder / model)

    def own(features: NDArray[Any], members: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        given = {"features": features.astype(np.float32), "members": members.astype(np.float32)}
        weight, bias = opened.run(["weight", "bias"], given)
        return weight, bias

    return own, f"{method}, the package's own way"


def _class_means(features: NDArray[Any], members: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    means = members.T @ features / members.sum(0)[:, None]
    return 2 * means, -(means**2).sum(1)


def _accuracies(
    features: NDArray[np.float64],
    numbers: NDArray[np.int64],
    able: NDArray[np.int64],
    task: tuple[int, int, int],
    head: _Head,
) -> NDArray[np.float64]:
    """Percent right in each of many tasks of so many (ways, shots, queries)."""
    ways, shots, queries = task
    generator = np.random.default_rng(0)
    places = {number: np.flatnonzero(numbers == number) for number in able.tolist()}
    truth = np.repeat(np.arange(ways), queries)
    members = np.repeat(np.eye(ways), shots, axis=0)
    found = np.empty(_TASKS)
    for number in range(_TASKS):
        classes = generator.choice(able, ways, replace=False).tolist()
        drawn = [generator.choice(places[each], shots + queries, replace=False) for each in classes]
        support = features[np.concatenate([each[:shots] for each in drawn])]
        weight, bias = head(support, members)
        scores = features[np.concatenate([each[shots:] for each in drawn])] @ weight.T + bias
        found[number] = 100 * (scores.argmax(1) == truth).mean()
    return found

"""How well a package's learner takes up classes that it never saw: mean accuracy over many small tasks drawn from the data.

Each sample is embedded once by the package; a task's head is made by the package's own map from examples to a head where it has one, else
by the means of the classes. ``mean ± 1.96 · s / √n`` over n tasks (Vinyals et al., "Matching Networks for One Shot Learning", 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from mapsto.errors import DataError
from mapsto.kinds import Metric
from mapsto_runtime.runtimes.onnxruntime import session
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.kinds import Adaptation
    from mapsto_runtime.predictor import Predictor

__all__ = ["needs_learner", "on_unseen_tasks"]

_TASKS, _TASKS_OF_LEARNERS = 400, 100
"""Of learners that take steps in a task there are fewer: each is as slow as a training."""
_WAYS, _QUERIES = 5, 15
_SHOTS = (1, 5)

_Head: TypeAlias = "Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]"


def needs_learner(predictor: Predictor) -> bool:
    """Whether the package's learner adapts in a way that only mapsto itself can follow, as by gradient steps."""
    return predictor.checked.adapting_model is None and "learner/network.json" in predictor.checked.files


def on_unseen_tasks(
    predictor: Predictor,
    features: NDArray[np.float64],
    labels: Sequence[str],
    inputs: NDArray[Any] | None = None,
    *,
    where: str,
) -> dict[str, Any]:
    """Accuracy over tasks of up to 5 classes with 1 and 5 examples of each, as JSON with ``metrics``, ``episodes`` and ``adapted_by``.

    Parameters
    ----------
    features, labels
        The package's outputs (N, D), and their classes' names.
    inputs
        The samples (N, ...) as the network takes them, where `needs_learner`; torch is imported then.

    Raises `DataError` where no two classes have two samples or more.
    """
    names, numbers = np.unique(np.array(labels, object), return_inverse=True)
    counts = np.bincount(numbers)
    judge, how, own_ways = _judge_of(predictor, features, numbers, inputs)
    metrics: dict[str, Any] = {}
    rows: list[list[Any]] = []
    for shots in _SHOTS:
        able = np.flatnonzero(counts > shots)
        if len(able) < (own_ways or 2):
            continue
        ways = own_ways or min(_WAYS, len(able))
        queries = int(min(_QUERIES, counts[able].min() - shots))
        found = judge(able, (ways, shots, queries))
        half = 1.959964 * float(found.std(ddof=1)) / len(found) ** 0.5
        metric = Metric(value=float(found.mean()), unit="%", ci95=half, n=len(found))
        metrics["accuracy" if not metrics else f"accuracy_{shots}_shot"] = vars(metric)
        rows.append([ways, shots, queries, len(found), {"value": metric.value, "ci95": half}])
    if not metrics:
        if own_ways is not None and own_ways > (counts > 1).sum():
            raise DataError(
                f"this learner tells {own_ways} classes apart, and {(counts > 1).sum()} have two samples or more",
                where=where,
                hint=f"give data of {own_ways} classes or more",
            )
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


_Judge: TypeAlias = "Callable[[NDArray[np.int64], tuple[int, int, int]], NDArray[np.float64]]"
"""Percent right in each of many tasks, from the classes to draw from and (ways, shots, queries)."""


def _judge_of(
    predictor: Predictor, features: NDArray[np.float64], numbers: NDArray[np.int64], inputs: NDArray[Any] | None
) -> tuple[_Judge, str, int | None]:
    """What judges tasks, how a learner adapts there, and how many classes a task has to have, where the learner's head decides."""
    if inputs is not None:
        return _by_learner(predictor, numbers, inputs)
    head, how = _head_of(predictor)
    return lambda able, task: _accuracies(features, numbers, able, task, head), how, None


def _by_learner(
    predictor: Predictor, numbers: NDArray[np.int64], inputs: NDArray[Any]
) -> tuple[_Judge, str, int | None]:
    """Tasks to which the learner itself adapts, in PyTorch."""
    from mapsto.data.tasks.drawn import DrawnEpisodes
    from mapsto.kinds import Preprocessing, Samples
    from mapsto.nn.meta.evaluation import episode_results
    from mapsto.nn.network import serialization
    from mapsto.nn.network.head import head as head_layer

    prefix = "learner/"
    hashes = {
        name.removeprefix(prefix): str(entry["sha256"])
        for name, entry in predictor.manifest["files"].items()
        if name.startswith(prefix)
    }
    network = serialization.load(predictor.folder / "learner", hashes=hashes)
    adaptation, before = cast("Any", network.adaptation), Preprocessing(kind="none")
    own = head_layer(network.module()) if _has_own_head(adaptation) else None

    def judge(able: NDArray[np.int64], task: tuple[int, int, int]) -> NDArray[np.float64]:
        places = np.flatnonzero(np.isin(numbers, able))
        labels = np.searchsorted(able, numbers[places])
        names = tuple(map(str, range(len(able))))
        samples = Samples(inputs=inputs[places], labels=labels, classes=names, preprocessing=before)
        drawn = DrawnEpisodes(samples, ways=task[0], shots=task[1], queries=task[2], seed=0)
        episodes = [drawn[number] for number in range(_TASKS_OF_LEARNERS)]
        return 100 * episode_results(network.module(), before, adaptation, episodes).accuracies

    how = f"{adaptation.method}, the learner's own way, in PyTorch"
    return judge, how, None if own is None else own.out_features


def _has_own_head(adaptation: Adaptation) -> bool:
    """Whether a task begins with the head that was trained, which has so many classes and no others."""
    return (
        adaptation.method in ("gradient", "head_gradient") and adaptation.settings.get("head", "learned") == "learned"
    )


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

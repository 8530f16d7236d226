"""What is known of a task before anything is trained: a few dozen numbers, from which no sample can be rebuilt.

How many examples and classes there are, how even these are, what kind of input it is, and quick landmarks on each frozen embedding that a
recipe may begin with (`mapsto.search.advisor.landmarks`). Where the examples lie in such an embedding is told by their mean in eight
random directions that are the same everywhere: tasks that are near in it are alike. What could not be computed is absent, with its
reason.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mapsto.errors import DataError, MapstoError
from mapsto.search.advisor.landmarks import MOST, landmarks
from mapsto.search.advisor.space import Kind

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Dataset, Network, Samples, Stream
    from mapsto.run.result import RunResult
    from mapsto.store import Store

__all__ = ["EVENTS", "NOT_TRAINED", "VERSION", "TaskFeatures", "of_dataset", "of_rows", "of_stream", "task_id"]

VERSION = 1
"""Raised whenever a feature means something else."""
EVENTS = 1000
"""The first events of a stream, which are looked at."""
NOT_TRAINED = "it is not trained yet"
"""Why a network was not asked that recipes may nevertheless begin with."""
_OF_IMAGES = ("lite0", "cifar_resnet20", "glyph_conv4")
_DIRECTIONS = 8
_RECENT = 200
"""Events of a stream that a landmark remembers that is to follow drift."""
_LEAST = 8
"""Examples without which where they lie is not told: of few a mean would say much."""


@dataclass(frozen=True, kw_only=True)
class TaskFeatures:
    """The features of one task."""

    kind: Kind
    values: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    """Embedding that could not be asked → the reason."""


def of_dataset(
    data: Dataset, kind: Kind, *, store: Store | None = None, train: bool = False, where: str = "advise"
) -> TaskFeatures:
    """Features of labelled images, texts or rows.

    Parameters
    ----------
    train
        Whether a network that has to be trained first, once, is; else it is asked only where the store holds it.

    Raises
    ------
    DataError
        There is no example, fewer than two classes, an empty class, or NaN.
    """
    from mapsto.context import Context, Numerics
    from mapsto.data.checks import require_classes, require_finite

    ctx = Context(numerics=Numerics(threads=1))
    if kind == "texts":
        values, missing = _by_embedding(data, ("minilm",), kind, store, ctx, train=train, where=where)
        return TaskFeatures(kind=kind, values=values, missing=missing)
    samples = _few(require_classes(ctx.dataset(data), where=where))
    require_finite(samples.inputs, where=where)
    if kind == "table":
        return TaskFeatures(kind=kind, values=of_rows(np.asarray(samples.inputs, np.float64), samples.labels))
    values = _shape(samples.labels) | _of_pixels(samples)
    found, missing = _by_embedding(data, _OF_IMAGES, kind, store, ctx, train=train, where=where)
    return TaskFeatures(kind=kind, values=values | found, missing=missing)


def of_rows(rows: NDArray[np.float64], labels: NDArray[Any]) -> dict[str, float]:
    """Features of rows of numbers (N, D) that are scaled, with class numbers (N,).

    >>> rng = np.random.default_rng(0)
    >>> rows, labels = rng.normal(size=(30, 4)), np.tile([0, 1, 2], 10)
    >>> one, other = of_rows(rows, labels), of_rows(rows[::-1], (labels[::-1] + 1) % 3)
    >>> all(abs(one[name] - other[name]) < 1e-9 for name in one)
    True
    """
    _require_two(labels, where="advise")
    values = _shape(labels) | {"columns": math.log2(rows.shape[1])}
    spread = rows.std(0)
    scaled = (rows - rows.mean(0)) / np.where(spread > 1e-9, spread, 1.0)
    moments = np.nan_to_num(np.stack([(scaled**3).mean(0), (scaled**4).mean(0) - 3]))
    distinct = np.array([len(np.unique(column)) for column in rows.T])
    values |= {
        "skewness": float(np.tanh(np.abs(moments[0]).mean())),
        "heavy_tails": float(np.tanh(moments[1].mean() / 10)),
        "two_valued": float((distinct <= 2).mean()),
        "correlation": _correlation(scaled),
    }
    values |= {f"columns_{name}": value for name, value in landmarks(rows, labels).items()}
    bent = np.maximum(rows @ _directions(rows.shape[1], 256, b"random features") / math.sqrt(rows.shape[1]), 0.0)
    values |= {f"random_{name}": value for name, value in landmarks(bent, labels).items()}
    return values


def of_stream(stream: Stream, *, where: str = "advise") -> TaskFeatures:
    """Features of the first labelled events of a stream, answered in their order by rules that learn each after it was answered.

    Raises `DataError` where fewer than 20 events have labels, or these are all alike.
    """
    rows, labels = _first_events(stream, where)
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise DataError("the first events are of one class", where=where, hint="give a stream with more classes")
    values = _shape(numbers) | {"columns": math.log2(rows.shape[1])}
    scaled = (rows - rows.mean(0)) / np.where(rows.std(0) > 1e-9, rows.std(0), 1.0)
    values |= _prequential(scaled, numbers, len(names))
    early, late = np.array_split(np.arange(len(rows)), 2)
    for name, part in (("early", early), ("late", late)):
        if len(np.unique(numbers[part])) > 1:
            order = part[:: max(len(part) // MOST, 1)]
            values |= {f"{name}_{rule}": value for rule, value in landmarks(scaled[order], numbers[order]).items()}
    moved = np.abs(scaled[early].mean(0) - scaled[late].mean(0))
    values |= {"moved": float(moved.mean()), "moved_most": float(moved.max()), "correlation": _correlation(scaled)}
    return TaskFeatures(kind="stream", values=values)


def task_id(fingerprint: str) -> str:
    """What a task is called in the list of runs: it says whether two are the same, and nothing of what is in them."""
    return hashlib.sha256(b"mapsto task " + fingerprint.encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------------------------------- parts


def _require_two(labels: NDArray[Any], *, where: str) -> None:
    if len(labels) == 0 or len(np.unique(labels)) < 2:
        what = "there is not one example" if len(labels) == 0 else "all examples are of one class"
        raise DataError(what, where=where, hint="give labelled examples of two classes or more")


def _shape(labels: NDArray[Any]) -> dict[str, float]:
    """How many examples and classes, and how even these are."""
    counts = np.unique(labels, return_counts=True)[1]
    shares = counts / counts.sum()
    return {
        "examples": math.log2(len(labels)),
        "classes": math.log2(len(counts)),
        "per_class": math.log2(len(labels) / len(counts)),
        "fewest": math.log2(int(counts.min())),
        "balance": float(-(shares * np.log(shares)).sum() / math.log(len(counts))),
    }


def _few(samples: Samples) -> Samples:
    """At most `MOST` examples, by a digest of their content, so that their order does not decide which."""
    if len(samples) <= MOST:
        return samples
    digests = [hashlib.sha256(np.ascontiguousarray(each).tobytes()).digest() for each in samples.inputs]
    counts = np.bincount(samples.labels)
    # In turn by class: the smallest classes are looked at whole.
    rank: dict[int, int] = {}
    order = sorted(range(len(samples)), key=lambda at: digests[at])
    turns: list[tuple[int, int]] = []
    for at in order:
        label = int(samples.labels[at])
        rank[label] = rank.get(label, 0) + 1
        turns.append((rank[label], at))
    kept = np.sort(np.array([at for _, at in sorted(turns)[: max(MOST, 2 * len(counts))]]))
    return samples.take(kept)


def _of_pixels(samples: Samples) -> dict[str, float]:
    """Whether there is colour, how bright and how sharp, and landmarks on small grey images."""
    import torch

    images = torch.as_tensor(np.ascontiguousarray(samples.inputs)).float() / 255
    grey = images.mean(1, keepdim=True)
    small = torch.nn.functional.adaptive_avg_pool2d(grey, 16)
    edges = (grey[..., 1:] - grey[..., :-1]).abs().mean()
    rows = small.flatten(1).double().numpy()
    extreme = ((grey < 0.1) | (grey > 0.9)).float().mean()
    values = {
        "colour": float((images - grey).abs().mean()),
        "brightness": float(grey.mean()),
        "contrast": float(grey.flatten(1).std(1).mean()),
        "edges": float(edges),
        "black_or_white": float(extreme),
    }
    return values | {f"pixels_{name}": value for name, value in landmarks(rows, samples.labels).items()}


def _by_embedding(
    data: Dataset,
    networks: tuple[str, ...],
    kind: Kind,
    store: Store | None,
    ctx: Context,
    *,
    train: bool,
    where: str,
) -> tuple[dict[str, float], dict[str, str]]:
    """Landmarks on each frozen embedding, and where the examples lie in it."""
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name in networks:
        if not train and not _is_at_hand(name, store):
            missing[name] = NOT_TRAINED
            continue
        try:
            network = network_of(name, store)
            rows, samples = _embedded(data, network, ctx, where)
        except DataError:
            raise
        except MapstoError as error:  # such as a library that is not installed
            missing[name] = str(error).partition("\n")[0]
            continue
        if kind == "texts":
            values |= _shape(samples.labels) | _of_words(samples)
        values |= {f"{name}_{rule}": value for rule, value in landmarks(rows, samples.labels).items()}
        values |= _place(rows, name)
        if kind == "texts" and (right := _right_by_name(rows, samples, network, ctx)) is not None:
            values["by_class_name"] = right
    if kind == "texts" and missing:
        raise MapstoError(f"texts are read by MiniLM, and that fails: {missing['minilm']}", where=where)
    return values, missing


def _embedded(data: Dataset, network: Network, ctx: Context, where: str) -> tuple[NDArray[np.float64], Samples]:
    from mapsto.data.checks import require_classes
    from mapsto.nn.adapt.features import features

    with ctx.giving(network):
        samples = _few(require_classes(ctx.dataset(data), where=where))
        _require_two(samples.labels, where=where)
        return np.asarray(features(network, samples.inputs, ctx), np.float64), samples


def network_of(name: str, store: Store | None) -> Network:
    """A network that recipes begin with; from the store where it is there."""
    return cast("Network", _made(name, store).value())


def _is_at_hand(name: str, store: Store | None) -> bool:
    """Whether nothing has to be trained for a network."""
    steps = _made(name, store, plan=True).steps
    return all(step.hit or not step.name.startswith("meta.") for step in steps)


def _made(name: str, store: Store | None, *, plan: bool = False) -> RunResult:
    from mapsto.context import Numerics
    from mapsto.recipe.reader import parse_recipe
    from mapsto.run.executor import execute
    from mapsto.search.advisor.space import network_steps
    from mapsto.search.recipe_text import recipe_text

    text = recipe_text({"schema": 1, "name": "embedding", "seed": 0, "steps": network_steps(name)})
    return execute(parse_recipe(text, name="embedding"), store=store, numerics=Numerics(threads=1), plan=plan)


def _place(rows: NDArray[np.float64], name: str) -> dict[str, float]:
    """The mean of embeddings of length 1, in a few fixed directions."""
    if len(rows) < _LEAST:
        return {}
    seen = _units(rows).mean(0) @ _directions(rows.shape[1], _DIRECTIONS, name.encode())
    return {f"{name}_place_{number}": float(value) for number, value in enumerate(seen)}


def _directions(inputs: int, count: int, seed: bytes) -> NDArray[np.float64]:
    """(inputs, count), drawn from the seed, the same everywhere."""
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
    return np.random.default_rng(number).normal(size=(inputs, count))


def _of_words(samples: Samples) -> dict[str, float]:
    """Of token ids (N, L) with 0 where nothing is: how long the texts are, and how often words come again."""
    ids = np.asarray(samples.inputs)
    ids = ids.reshape(len(ids), -1)
    there = ids != ids.min()
    lengths = there.sum(1)
    return {
        "length": math.log2(max(float(lengths.mean()), 1.0)),
        "length_spread": float(lengths.std() / max(float(lengths.mean()), 1.0)),
        "new_words": len(np.unique(ids[there])) / max(int(there.sum()), 1),
    }


def _right_by_name(rows: NDArray[np.float64], samples: Samples, network: Network, ctx: Context) -> float | None:
    """The share of texts that are nearest to the name of their own class; None where the names are no words."""
    from mapsto.nn.adapt.label_names import named_classes

    named = named_classes(network, samples.classes, ctx)
    if named is None or len(named.labels) < len(samples.classes):
        return None
    return float((named.labels[(_units(rows) @ _units(named.features).T).argmax(1)] == samples.labels).mean())


def _units(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(rows, np.float64) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _correlation(scaled: NDArray[np.float64]) -> float:
    """The mean absolute correlation of two columns; 0 of one."""
    columns = scaled.shape[1]
    if columns < 2:
        return 0.0
    found = np.abs(scaled.T @ scaled) / len(scaled)
    return float((found.sum() - np.trace(found)) / (columns * (columns - 1)))


def _first_events(stream: Stream, where: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """The first labelled events as numbers (N, D), words by their order in the alphabet and gaps as means, and their labels (N,)."""
    columns: dict[str, list[NDArray[Any]]] = {}
    labels: list[NDArray[Any]] = []
    seen = 0
    for block in stream.open(size=EVENTS):
        kept = np.flatnonzero(block.has_x & block.has_y)
        for name, values in block.x.items():
            columns.setdefault(name, []).append(np.asarray(values)[kept])
        labels.append(np.asarray(block.y)[kept])
        seen += len(kept)
        if seen >= EVENTS or not len(block):
            break
    whole = {name: np.concatenate(parts)[:EVENTS] for name, parts in columns.items()}
    whole = {name: values for name, values in whole.items() if values.ndim == 1 and len(values) == min(seen, EVENTS)}
    if seen < 20 or not whole:
        raise DataError(f"the stream begins with {seen} labelled events", where=where, hint="give 20 or more")
    rows: list[NDArray[np.float64]] = []
    for values in whole.values():
        numbers = (
            values.astype(np.float64) if values.dtype.kind in "fiub" else np.unique(values, return_inverse=True)[1]
        )
        known = np.isfinite(numbers)
        rows.append(np.where(known, numbers, numbers[known].mean() if known.any() else 0.0))
    return np.stack(rows, axis=1), np.concatenate(labels)[:EVENTS]


def _prequential(rows: NDArray[np.float64], numbers: NDArray[Any], classes: int) -> dict[str, float]:
    """Shares right of rules that answer each event before they learn it: of all events before, and of the last ones."""
    apart = np.square(rows[:, None, :] - rows[None, :, :]).sum(2) if len(rows) <= 2000 else np.zeros((0, 0))
    right: dict[str, int] = dict.fromkeys(
        ("no_change", "majority", "near_any", "near_recent", "means_all", "means_recent"), 0
    )
    counts = np.zeros(classes)
    begin = 10
    for at in range(1, len(rows)):
        counts[numbers[at - 1]] += 1
        if at < begin:
            continue
        label = numbers[at]
        first = max(at - _RECENT, 0)
        right["no_change"] += int(numbers[at - 1] == label)
        right["majority"] += int(counts.argmax() == label)
        right["near_any"] += int(numbers[apart[at, :at].argmin()] == label)
        right["near_recent"] += int(numbers[first + apart[at, first:at].argmin()] == label)
        for name, begins in (("means_all", 0), ("means_recent", first)):
            if name == "means_all" and at % 4:  # every fourth event is enough, and means are dear
                continue
            right[name] += int(_nearest_mean(rows[begins:at], numbers[begins:at], rows[at]) == label)
    asked = len(rows) - begin
    shares = {name: count / asked for name, count in right.items() if name != "means_all"}
    every = len([at for at in range(begin, len(rows)) if not at % 4])
    return shares | {"means_all": right["means_all"] / max(every, 1)}


def _nearest_mean(rows: NDArray[np.float64], numbers: NDArray[Any], asked: NDArray[np.float64]) -> int:
    names, places = np.unique(numbers, return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, places, rows)
    means = sums / np.bincount(places)[:, None]
    return int(names[np.square(means - asked).sum(1).argmin()])

"""Classes that come one after another, each example once: heads on a frozen encoder, beside one that has all examples at once.

mapsto bench class_incremental
mapsto bench class_incremental --seeds 0

EfficientNet-Lite0 with its ImageNet weights (extra `vision`) embeds a part of CIFAR-100 at 224 pixels, in ONNX Runtime, an image at a time;
the embeddings are kept in ``$MAPSTO_BENCH/class_incremental``. The heads see the training embeddings class by class, and answer test images
of all classes in the end. What each came to is kept in ``benchmarks/results/trials``, and the same command goes on there. Joint training
is logistic regression, its regularisation chosen on a fifth of the training embeddings.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import numpy as np
from _own_worker import Nothing
from numpy.typing import NDArray

from mapsto import datasets, export, networks, online
from mapsto.data.io.download import locate
from mapsto.kinds import Block, Samples
from mapsto.nn.online.encoder import EMBEDDING, encoder_of
from mapsto.report.build import t95

TRAIN, TEST = 50, 20
"""Images of a class."""
SEEDS = range(3)
"""Of the order of the classes, and of what heads draw."""
REPLAYED = 20
"""Examples of a class that the softmax with replay keeps, as many as its memory holds at 100 classes."""
Rows = NDArray[np.float64]
Labels = NDArray[np.int64]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    (x, y), (test_x, test_y) = clustered() if quick else (embedded("train", TRAIN), embedded("test", TEST))
    file = common.RESULTS / "trials" / "class_incremental.json"
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}

    def measured(name: str, seed: int, head: Head) -> None:
        if str(seed) in kept.setdefault(name, {}):
            return
        order = one_after_another(y, seed)
        began = time.process_time()
        answers = head(x[order], y[order], test_x, seed)
        spent = (time.process_time() - began) / len(y) * 1e3
        kept[name][str(seed)] = {"accuracy": 100 * float((answers == test_y).mean()), "ms": spent}
        print(name, seed, kept[name][str(seed)], flush=True)
        if not quick:
            file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")

    measured(JOINT, 0, joint)
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        for name, head in HEADS.items():
            if only in name and not (quick and name == RIDGES[1]):
                measured(name, seed, head)
    rows = [row_of(name, list(kept.get(name, {}).values()), kept[JOINT]["0"]["accuracy"]) for name in (JOINT, *HEADS)]
    found = {row["head"]: row for row in rows}
    best = max(found[name].get("points above joint", -100.0) for name in RIDGES)
    tree = common.result(
        "class_incremental",
        conditions={
            "images of a class": {"train": TRAIN, "test": TEST},
            "classes": int(y.max()) + 1,
            "features": x.shape[1],
            "replayed": REPLAYED,
            "order": "classes in an order drawn by the seed, the examples of each together",
            "quick": quick,
        },
        rows=rows,
        targets=[
            common.target(
                "online.ridge by its defaults: points above joint training",
                ">= -1",
                found[RIDGES[0]].get("points above joint"),
            ),
            common.target("online.ridge, its best projection: points above joint training", ">= -1", best),
        ],
    )
    return common.finished(tree, quick=quick)


def row_of(name: str, trials: Sequence[Mapping[str, float]], joint_accuracy: float) -> dict[str, Any]:
    """A head's figures over seeds."""
    if not trials:
        return {"head": name, "accuracy": "not run", "seeds": 0}
    accuracies = [trial["accuracy"] for trial in trials]
    return {
        "head": name,
        "accuracy": statistics.mean(accuracies),
        "ci95 over seeds": t95(accuracies),
        "points above joint": statistics.mean(accuracies) - joint_accuracy,
        "CPU ms an example": statistics.median(trial["ms"] for trial in trials),
        "seeds": len(trials),
    }


def one_after_another(y: Labels, seed: int) -> Labels:
    """Examples by class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.flatnonzero(y == label) for label in rng.permutation(y.max() + 1)])


# ------------------------------------------------------------------------------------------------------------------ embeddings


def embedded(split: str, per_class: int) -> tuple[Rows, Labels]:
    """The encoder's features (N, 1280) and labels of the first images of each class, kept once they are there."""
    folder = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "class_incremental"
    file = folder / f"{split}-{per_class}.npz"
    if not file.is_file():
        locate("cifar-100-binary", what="CIFAR-100")
        samples = datasets.cifar100(split=split).open()  # type: ignore[arg-type]
        labels = np.asarray(samples.labels)
        wanted = np.sort(np.concatenate([np.flatnonzero(labels == each)[:per_class] for each in np.unique(labels)]))
        x, y = features(samples.take(wanted)), labels[wanted].astype(np.int64)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file.with_suffix(".part.npz"), x=x, y=y)
        file.with_suffix(".part.npz").replace(file)
    with np.load(file) as held:
        return held["x"].astype(np.float64), held["y"]


def features(samples: Samples) -> NDArray[np.float32]:
    encoder = encoder_of(export.onnx()(networks.efficientnet_lite0()(seed=0)))
    found: list[Rows] = []
    for start in range(0, len(samples.labels), 100):
        images = samples.inputs[start : start + 100]
        found.append(encoder.encoded(block_of({"image": images}, None, len(images))).x[EMBEDDING])
        print("embedded", start + len(images), flush=True)
    return np.concatenate(found).astype(np.float32)


def clustered() -> tuple[tuple[Rows, Labels], tuple[Rows, Labels]]:
    """Ten classes that are quickly there, in place of embeddings."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 32))

    def drawn(count: int) -> tuple[Rows, Labels]:
        y = np.arange(10 * count) % 10
        return np.maximum(means[y] + 0.8 * rng.normal(size=(len(y), 32)), 0.0), y

    return drawn(20), drawn(20)


def block_of(x: dict[str, NDArray[Any]], y: Labels | None, count: int) -> Block:
    labels = (
        np.full(count, "", dtype=object) if y is None else np.array([f"{label:02}" for label in y.tolist()], object)
    )
    return Block(
        times=np.arange(count, dtype=np.float64),
        ids=np.full(count, "", dtype=object),
        x=x,
        has_x=np.ones(count, np.bool_),
        y=labels,
        has_y=np.full(count, y is not None),
        next=count,
    )


# ------------------------------------------------------------------------------------------------------------------ heads


Head = Callable[[Rows, Labels, Rows, int], Labels]
"""Training features and labels in their order, test features and a seed → answers."""


def of_mapsto(mapping: Any, **fields: Any) -> Head:
    """A learner of mapsto on embeddings, as it has them behind an encoder."""

    def head(x: Rows, y: Labels, test: Rows, seed: int) -> Labels:
        own = {"seed": seed} if "seed" in mapping.__pydantic_fields__ else {}
        learner = mapping(stream=Nothing(), **own, **fields)(None).open()
        learner.learn(block_of({EMBEDDING: x}, y, len(x)))
        scores = learner.predict(block_of({EMBEDDING: test}, None, len(test)))
        return np.array([int(name) for name in learner.signature.classes])[scores.argmax(axis=1)]

    return head


def class_means(x: Rows, y: Labels, test: Rows, seed: int) -> Labels:
    """The nearest mean by cosine."""
    means = np.stack([x[y == label].mean(axis=0) for label in range(y.max() + 1)])
    return (_unit(test) @ _unit(means).T).argmax(axis=1)


def streaming_lda(x: Rows, y: Labels, test: Rows, seed: int) -> Labels:
    """Class means and one covariance, both running, with shrinkage 1e-4 (Hayes and Kanan, 2020)."""
    classes, width = y.max() + 1, x.shape[1]
    means, counts, covariance = np.zeros((classes, width)), np.zeros(classes), np.eye(width)
    for seen, (row, label) in enumerate(zip(x, y.tolist(), strict=True)):
        step = row - means[label]
        if seen:
            covariance += (np.outer(step, step) * seen / (seen + 1) - covariance) / (seen + 1)
        counts[label] += 1
        means[label] += step / counts[label]
    precision = np.linalg.inv((1 - 1e-4) * covariance + 1e-4 * np.eye(width))
    weights = means @ precision
    return (test @ weights.T - 0.5 * (weights * means).sum(axis=1)).argmax(axis=1)


def replay(x: Rows, y: Labels, test: Rows, seed: int) -> Labels:
    """A softmax by Adam: with each example 31 drawn from a memory that holds a random part of what came (reservoir sampling).

    Its rate is the best of three on a fifth of the training examples.
    """
    held = np.random.default_rng(0).permutation(len(y)) < len(y) // 5
    trials = {rate: _replayed(x[~held], y[~held], x[held], seed, rate) for rate in (1e-3, 3e-3, 1e-2)}
    rate = max(trials, key=lambda rate: float((trials[rate] == y[held]).mean()))
    print("replay: rate", rate, flush=True)
    return _replayed(x, y, test, seed, rate)


def _replayed(x: Rows, y: Labels, test: Rows, seed: int, rate: float) -> Labels:
    rng = np.random.default_rng(seed)
    classes, width = int(y.max()) + 1, x.shape[1]
    scale = 1.0 / np.sqrt((x * x).mean())  # alike for all columns, so that it tells nothing of classes to come
    w, m, v = np.zeros((width + 1, classes)), np.zeros((width + 1, classes)), np.zeros((width + 1, classes))
    memory = np.zeros(REPLAYED * classes, np.int64)
    rows = np.concatenate([x * scale, np.ones((len(x), 1))], axis=1)
    for seen in range(len(x)):
        held = min(seen, len(memory))
        batch = np.append(memory[rng.integers(0, held, 31)] if held else np.zeros(0, np.int64), seen)
        logits = rows[batch] @ w
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(batch)), y[batch]] -= 1
        gradient = rows[batch].T @ p / len(batch)
        m += 0.1 * (gradient - m)
        v += 0.001 * (gradient * gradient - v)
        w -= rate * (m / (1 - 0.9 ** (seen + 1))) / (np.sqrt(v / (1 - 0.999 ** (seen + 1))) + 1e-8)
        place = seen if seen < len(memory) else int(rng.integers(0, seen + 1))
        if place < len(memory):
            memory[place] = seen
    return (np.concatenate([test * scale, np.ones((len(test), 1))], axis=1) @ w).argmax(axis=1)


def joint(x: Rows, y: Labels, test: Rows, seed: int) -> Labels:
    """Logistic regression on all examples at once, on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(c: float, rows: Rows, labels: Labels) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=200)).fit(rows, labels)

    held = np.random.default_rng(0).permutation(len(y)) < len(y) // 5
    c = max(
        (1e-3, 1e-2, 1e-1),
        key=lambda c: float((fitted(c, x[~held], y[~held]).predict(x[held]) == y[held]).mean()),
    )
    print("joint: C", c, flush=True)
    return fitted(c, x, y).predict(test)


def _unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


JOINT = "joint logistic regression, all at once"
RIDGES = ("online.ridge", "online.ridge, 3000 random features", "online.ridge, 1000 random features")
HEADS: dict[str, Head] = {
    RIDGES[0]: of_mapsto(online.ridge),
    "class means, by cosine": class_means,
    "online.prototypes": of_mapsto(online.prototypes),
    "streaming LDA": streaming_lda,
    RIDGES[2]: of_mapsto(online.ridge, projection=1000),
    "online.softmax, without replay": of_mapsto(online.softmax),
    "softmax with replay": replay,
    RIDGES[1]: of_mapsto(online.ridge, projection=3000),
}


if __name__ == "__main__":
    main("--quick" in sys.argv)

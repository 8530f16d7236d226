"""A learner of river or MOA over one stream, event by event: what it is answered, learnt and timed by. Run by a peer's own Python.

python _peer_worker.py "river ARF-10" 0=STREAM.npz 1=STREAM.npz

Each seed prints a line of JSON: the share of right answers, given before the label, and seconds of the thread, the process and the wall.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

import numpy as np

BLOCK = 256
"""Events of a call of `learn_many`."""


def river_learner(name: str, seed: int):
    from river import ensemble, forest, linear_model, neighbors, preprocessing, tree

    scaled = preprocessing.StandardScaler
    makers = {
        "river softmax": lambda: scaled() | linear_model.SoftmaxRegression(),
        "river logistic, learn_many": lambda: scaled() | linear_model.LogisticRegression(),
        "river HAT": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=seed),
        "river ARF-10": lambda: forest.ARFClassifier(n_models=10, seed=seed),
        "river AMF-10": lambda: (
            preprocessing.MinMaxScaler() | forest.AMFClassifier(n_estimators=10, split_pure=True, seed=seed)
        ),
        "river AMF-10, unscaled": lambda: forest.AMFClassifier(n_estimators=10, split_pure=True, seed=seed),
        "river SRP-10": lambda: ensemble.SRPClassifier(n_models=10, seed=seed),
        "river kNN": lambda: scaled() | neighbors.KNNClassifier(n_neighbors=5),
    }
    return makers[name]()


def of_river(name: str, seed: int, x: np.ndarray, y: np.ndarray):
    learner = river_learner(name, seed)
    events = [dict(enumerate(row)) for row in x.tolist()]
    labels = y.tolist()

    def run() -> int:
        right = 0
        for event, label in zip(events, labels, strict=True):
            right += learner.predict_one(event) == label
            learner.learn_one(event, label)
        return right

    return run


def of_river_in_blocks(name: str, seed: int, x: np.ndarray, y: np.ndarray):
    """A block is answered whole, and then learnt."""
    import pandas

    if y.max() > 1:
        sys.exit("it knows two classes alone")
    learner = river_learner(name, seed)
    names = [f"x{column}" for column in range(x.shape[1])]
    blocks = [
        (pandas.DataFrame(x[start : start + BLOCK], columns=names), pandas.Series(y[start : start + BLOCK]))
        for start in range(0, len(x), BLOCK)
    ]

    def run() -> int:
        right = 0
        for number, (events, labels) in enumerate(blocks):
            if number:
                right += int((np.asarray(learner.predict_many(events)) == labels.to_numpy()).sum())
            learner.learn_many(events, labels)
        return right

    return run


def of_moa(name: str, seed: int, x: np.ndarray, y: np.ndarray):
    from capymoa.classifier import AdaptiveRandomForestClassifier, SAMkNN, StreamingRandomPatches
    from capymoa.stream import NumpyStream

    stream = NumpyStream(x, y, target_type="categorical")
    schema = stream.get_schema()
    events = []
    while stream.has_more_instances():
        events.append(stream.next_instance())
    makers = {
        "MOA ARF-10": lambda: AdaptiveRandomForestClassifier(schema=schema, ensemble_size=10, random_seed=seed),
        "MOA SRP-10": lambda: StreamingRandomPatches(schema=schema, ensemble_size=10, random_seed=seed),
        "MOA SAM-kNN": lambda: SAMkNN(schema=schema),
    }
    learner = makers[name]()

    def run() -> int:
        right = 0
        for event in events:
            right += learner.predict(event) == event.y_index
            learner.train(event)
        return right

    return run


def main() -> None:
    name, *given = sys.argv[1:]
    if name.startswith("MOA") and hasattr(os, "sched_setaffinity"):  # Java has threads beside; the others have one
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    prepare = of_moa if name.startswith("MOA") else of_river_in_blocks if name.endswith("learn_many") else of_river
    for seed, _, file in (each.partition("=") for each in given):
        with np.load(file) as held:
            x, y = held["x"], held["y"]
        run = prepare(name, int(seed), x, y)
        gc.collect()
        began = time.thread_time(), time.process_time(), time.perf_counter()
        right = run()
        thread, process, wall = (
            end - start
            for start, end in zip(began, (time.thread_time(), time.process_time(), time.perf_counter()), strict=True)
        )
        found = {"accuracy": 100 * right / len(y), "thread_s": thread, "process_s": process, "wall_s": wall}
        print("FOUND " + json.dumps({"seed": int(seed), "events": len(y), **found}), flush=True)


if __name__ == "__main__":
    main()

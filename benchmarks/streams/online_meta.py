"""Alphabets one after another: how quickly a network that trains on the stream learns the characters of the next one.

mapsto bench online_meta
mapsto bench online_meta --only maml --seeds 0

Each concept is an alphabet of Omniglot's evaluation set, of which five characters come twenty times each, shuffled; no label says which
alphabet it is, and every answer is one of all characters so far. A learner begins from a network that knows nothing (scratch), one that was
trained to tell the characters of the background alphabets apart (supervised), or one that was meta-trained on them (MAML, Meta-SGD): the
same Conv4. What counts is the accuracy over the first 50 events of a concept, the first concept left out, and the regret: the log loss
beyond that of one fixed network, trained on the whole stream in hindsight. Rates are the defaults (what others come to on background
alphabets, `--tune` prints); five steps on each mini-batch were better there than one.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import numpy as np
from _own_worker import Nothing
from numpy.typing import NDArray

from mapsto import datasets, discovery, meta, networks, train
from mapsto.data.io.download import locate
from mapsto.errors import DataError
from mapsto.kinds import Block, Network
from mapsto.report.build import t95
from mapsto.store import Store

SEEDS = range(3)
"""Of the alphabets' order, the characters and the drawings' order, and of all that is drawn."""
TUNING_SEED = 100
CONCEPTS, CHARACTERS, DRAWINGS = 8, 5, 20
FIRST = 50
"""Events of a concept that count."""
LEAST = 1e-4
"""The least probability in a log loss, so that one event costs at most 9.2."""
STARTS = ("scratch", "supervised", "maml", "metasgd")
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "la_maml": ("online.la_maml", {"batch": 5, "inner_steps": 5, "replay": 10, "steps": 5}),
    "follow_the_meta_leader": ("online.follow_the_meta_leader", {"batch": 5, "steps": 1, "inner_steps": 5}),
    "finetune, replay": ("online.finetune", {"method": "replay", "batch": 5, "replay": 15, "steps": 5}),
}
CHOSEN: dict[str, dict[str, Any]] = {}
"""Row → fields that `--tune` chose."""
RATES: dict[str, tuple[str, Sequence[float]]] = {
    "la_maml": ("inner_rate", (0.03, 0.1)),
    "follow_the_meta_leader": ("inner_rate", (0.03, 0.1)),
    "finetune, replay": ("rate", (1e-3, 3e-3)),
}
META_STEPS = {"maml": 600, "metasgd": 600}
"""Of meta-training, at about the work of the supervised training."""
HINDSIGHT = "fixed in hindsight"
Images = NDArray[np.uint8]


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "online_meta.json"
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    names = [f"{learner} from {start}" for start in (*STARTS[1:3], STARTS[0], STARTS[3]) for learner in LEARNERS]
    for seed in seeds or (SEEDS[:1] if quick else SEEDS):
        for name in (HINDSIGHT, *names):
            if only not in name or str(seed) in kept.get(name, {}):
                continue
            try:
                kept.setdefault(name, {})[str(seed)] = run(name, seed, quick=quick)
            except DataError as error:
                print(f"{name}: {error}", flush=True)
                continue
            print(name, seed, kept[name][str(seed)], flush=True)
            if not quick:
                file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    rows = [row_of(name, kept) for name in (HINDSIGHT, *names)]
    found = {row["learner"]: row.get("first 50") for row in rows}
    tree = common.result(
        "online_meta",
        conditions={
            "network": "Conv4, strides, 32 channels",
            "concepts": f"{CONCEPTS} alphabets, {CHARACTERS} characters, {DRAWINGS} drawings of each",
            "least probability in a log loss": LEAST,
            "fields": {name: {**LEARNERS[name.partition(" from ")[0]][1], **CHOSEN.get(name, {})} for name in names},
            "quick": quick,
        },
        rows=rows,
        targets=[
            common.target(
                f"{learner} from MAML: points of the first {FIRST} events above the best from {start}",
                ">= 0",
                gain(found, learner, start),
            )
            for learner in ("la_maml", "follow_the_meta_leader")
            for start in STARTS[:2]
        ],
    )
    return common.finished(tree, quick=quick)


def gain(found: dict[str, Any], learner: str, start: str) -> float | None:
    """Against the best learner from that start; None before all were run."""
    others = [found[f"{name} from {start}"] for name in LEARNERS]
    own = found[f"{learner} from maml"]
    return None if own is None or None in others else own - max(others)


def row_of(name: str, kept: dict[str, dict[str, Any]]) -> dict[str, Any]:
    trials = kept.get(name, {})
    if not trials:
        return {"learner": name, "accuracy": "not run", "seeds": 0}
    first = [trial["first"] for trial in trials.values()]
    regrets = [
        trial["loss"] - kept[HINDSIGHT][seed]["loss"]
        for seed, trial in trials.items()
        if seed in kept.get(HINDSIGHT, {})
    ]
    return {
        "learner": name,
        "first 50": statistics.mean(first),
        "ci95 over seeds": t95(first),
        "accuracy": statistics.mean(trial["accuracy"] for trial in trials.values()),
        **({"regret, nats": statistics.mean(regrets)} if regrets else {}),
        "CPU s": statistics.median(trial["seconds"] for trial in trials.values()),
        "seeds": len(trials),
    }


# ------------------------------------------------------------------------------------------------------------------ a run


def run(name: str, seed: int, *, quick: bool = False, tuning: bool = False, **fields: Any) -> dict[str, Any]:
    """A whole stream, each event answered before it is learnt."""
    images, labels = stream(seed, quick=quick, tuning=tuning)
    began = time.process_time()
    if name == HINDSIGHT:
        scores, classes = in_hindsight(images, labels, seed, quick=quick)
    else:
        learner, _, start = name.partition(" from ")
        mapping, own = LEARNERS[learner]
        live = discovery.find("mappings", mapping)(
            stream=Nothing(), seed=seed, batch_norm="running", **{**own, **CHOSEN.get(name, {}), **fields}
        )(network(start, quick=quick)).open()
        scores, classes = live.learn(block_of(images, labels)), live.signature.classes
    own_scores = scores[np.arange(len(labels)), [classes.index(str(label)) for label in labels.tolist()]]
    right = (scores.argmax(1) == [classes.index(str(label)) for label in labels.tolist()]) & (own_scores > 0)
    by_concept = right.reshape(-1, CHARACTERS * DRAWINGS)
    return {
        "first": 100 * float(by_concept[1:, :FIRST].mean()),
        "accuracy": 100 * float(right.mean()),
        "loss": sum(-math.log(max(score, LEAST)) for score in own_scores.tolist()),
        "seconds": time.process_time() - began,
    }


def in_hindsight(images: Images, labels: NDArray[np.int64], seed: int, *, quick: bool) -> tuple[Any, tuple[str, ...]]:
    """Scores of one network that was trained on the whole stream, shuffled, many times."""
    learner = discovery.find("mappings", "online.finetune")(
        stream=Nothing(), method="none", batch=32, rate=3e-3, batch_norm="running", seed=seed
    )
    live = learner(network("supervised", quick=quick)).open()
    rng = np.random.default_rng((seed, 3))
    for _ in range(1 if quick else 12):
        order = rng.permutation(len(labels))
        live.learn(block_of(images[order], labels[order]))
    return live.predict(block_of(images, None)), live.signature.classes


def stream(seed: int, *, quick: bool, tuning: bool) -> tuple[Images, NDArray[np.int64]]:
    """Drawings (N, 1, 28, 28) and characters, alphabet after alphabet."""
    locate("omniglot-py", what="Omniglot")
    samples = datasets.omniglot(split="background" if tuning else "evaluation").open()
    labels = np.asarray(samples.labels, np.int64)
    alphabets: dict[str, list[int]] = {}
    for number, name in enumerate(samples.classes):
        alphabets.setdefault(name.rpartition("/")[0], []).append(number)
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.int64]] = []
    for name in rng.permutation(sorted(alphabets))[: 3 if quick else CONCEPTS].tolist():
        chosen = rng.choice(alphabets[name], CHARACTERS, replace=False)
        rows.append(rng.permutation(np.flatnonzero(np.isin(labels, chosen))))
    order = np.concatenate(rows)
    return samples.inputs[order], labels[order]


def network(start: str, *, quick: bool) -> Network:
    """What a learner begins from, kept once it is trained."""
    source = datasets.omniglot(split="background")
    plain = {"width": 32, "downsampling": "stride"}
    if start == "scratch":
        return networks.conv4(data=source, **plain)(seed=0)
    store = Store(common.RESULTS.parent.parent / "runs" / "bench" / "online_meta")
    name = store.root / f"{start}{'-quick' if quick else ''}.txt"
    if name.is_file():
        return store.load(name.read_text("utf-8"))
    if start == "supervised":
        made = train.supervised(data=source, epochs=1 if quick else 6)(
            networks.conv4(data=source, classes="data", **plain)(seed=0)
        )
    else:
        tasks = datasets.episodes(data=source, ways=5, shots=1, queries=5)
        mapping = {"maml": meta.maml, "metasgd": meta.metasgd}[start]
        made = mapping(tasks=tasks, steps=2 if quick else META_STEPS[start])(
            networks.conv4(data=source, **plain)(seed=0)
        )
    name.write_text(store.save(made), encoding="utf-8")
    return made


def block_of(images: Images, labels: NDArray[np.int64] | None) -> Block:
    count = len(images)
    names = [""] * count if labels is None else [str(label) for label in labels.tolist()]
    return Block(
        times=np.arange(count, dtype=np.float64),
        ids=np.full(count, "", dtype=object),
        x={"image": images},
        has_x=np.ones(count, np.bool_),
        y=np.array(names, dtype=object),
        has_y=np.full(count, labels is not None),
        next=count,
    )


def tune() -> None:
    """Print what rates come to on background alphabets, and with another seed; choices are written into CHOSEN by hand."""
    for start in STARTS:
        for learner, (field, values) in RATES.items():
            for value in values:
                name = f"{learner} from {start}"
                found = run(name, TUNING_SEED, tuning=True, **{field: value})
                print(name, field, value, {"first": found["first"], "accuracy": found["accuracy"]}, flush=True)


if __name__ == "__main__":
    tune() if "--tune" in sys.argv else main("--quick" in sys.argv)

"""Which random changes help with five labels a class: ``augment: auto`` beside no augmentation, each operation, and the oracle.

mapsto bench augment_policy
mapsto bench augment_policy --seeds 0,1

EfficientNet-Lite0 with its ImageNet weights (extra `vision`) embeds CIFAR-10 at 112 pixels in ONNX Runtime, on one thread; a head of ridge
regression on the root of the features is fitted to 50 examples and four copies of each, as `adapt.ridge` does. Embeddings are kept in
``$MAPSTO_BENCH/augment_policy``, what each draw came to in ``benchmarks/results/trials``: the same command goes on there. The oracle knows
the test images: in each draw it takes what does best on them.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import common

from mapsto import datasets, networks
from mapsto.data.augment import Augmentations
from mapsto.data.augment._auto import candidates
from mapsto.data.stratify import first_of_each_class
from mapsto.kinds import Samples
from mapsto.nn.adapt import augment_policy, ridge
from mapsto.report.build import t95

LABELS, TEST = 5, 150
"""Images of a class."""
DRAWS = range(10)
CLASSES = 10
Embed = Callable[[NDArray[Any]], NDArray[np.float32]]


def main(quick: bool = False, seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "augment_policy.json"
    kept: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    wanted = seeds or (DRAWS[:1] if quick else DRAWS)
    stamp = _stamp()
    for draw in wanted:
        if kept.get(str(draw), {}).get("stamp") != stamp:
            kept[str(draw)] = {"stamp": stamp, **trial(draw, quick=quick)}
            if not quick:
                file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
    trials = [kept[str(draw)] for draw in DRAWS if kept.get(str(draw), {}).get("stamp") == stamp]
    return common.finished(result(trials, quick=quick), quick=quick)


def trial(draw: int, *, quick: bool) -> dict[str, Any]:
    """One draw of examples: test accuracy (%) and judgement of every candidate, and what was chosen."""
    began = time.process_time()
    train, test, embed = data_of(draw, quick=quick)
    plain = _held(f"{draw}-plain", lambda: embed(train.inputs), quick=quick)
    lists = augment_policy.lists_for("images")[: 3 if quick else None]
    copier = _Copier(train, embed, draw, quick=quick)
    judge = augment_policy.Judge.of(plain, train.labels, CLASSES, np.random.default_rng(draw))
    choice = augment_policy.chosen(judge, lists, copier)
    rooted = ridge.rooted(plain)
    base = ridge.fitted(rooted, train.labels, CLASSES, normalise=True)
    asked = ridge.rooted(_held("test", lambda: embed(test.inputs), quick=quick))

    def accuracy(operations: Augmentations) -> float:
        weight, bias = base.weight, base.bias
        if operations:
            copies = ridge.rooted(copier(operations)[0])
            rows, labels, weights = augment_policy.with_copies(rooted, train.labels, copies)
            penalty = base.penalty * (1 + len(copies))
            weight, bias = ridge.fit(
                rows, labels, CLASSES, penalty=penalty, scale=base.scale, weights=weights, normalise=True
            )
        return 100 * float(((asked @ weight.T + bias).argmax(1) == test.labels).mean())

    found = {
        augment_policy.as_yaml(each.operations): {
            "accuracy": accuracy(each.operations),
            "loss": each.loss,
            "gain": each.gain,
            "error": each.error,
            "on copies": each.on_copies,
        }
        for each in (choice.none, *choice.tried)
    }
    chosen = augment_policy.as_yaml(choice.operations)
    print(draw, chosen, round(found[chosen]["accuracy"] - found["[]"]["accuracy"], 2), flush=True)
    return {"chosen": chosen, "candidates": found, "CPU s": time.process_time() - began}


def result(trials: Sequence[dict[str, Any]], *, quick: bool) -> dict[str, Any]:
    """Rows, a policy each, and goals."""
    none = [each["candidates"]["[]"]["accuracy"] for each in trials]
    chosen = [each["candidates"][each["chosen"]]["accuracy"] for each in trials]
    singles = [augment_policy.as_yaml((each,)) for each in candidates("images")]
    tables = [
        {text: each["candidates"][text] for text in ("[]", *singles) if text in each["candidates"]} for each in trials
    ]
    oracle = [max(each["accuracy"] for each in table.values()) for table in tables]
    rows = [
        _row("none", none, none),
        _row("augment: auto", chosen, none),
        _row("oracle, a single operation or none in each draw", oracle, none),
    ]
    known = [
        {
            **_row(text[1:-1], [table[text]["accuracy"] for table in tables], none),
            "cross-validated log-loss": statistics.mean(table[text]["loss"] for table in tables),
        }
        for text in singles
        if all(text in table for table in tables)
    ]
    rows += sorted(known, key=lambda row: -row["accuracy"])
    best = max((row["accuracy"] for row in known), default=None)
    mean = statistics.mean
    whole = len(trials) == len(DRAWS)
    return common.result(
        "augment_policy",
        conditions={
            "images": f"CIFAR-10 at 112 pixels, {LABELS} labels a class, {TEST * CLASSES} test images",
            "draws": len(trials),
            "candidates": len(singles),
            "chosen": [each["chosen"] for each in trials],
            "points above none, by draw": [round(own - base, 2) for own, base in zip(chosen, none, strict=True)],
            "best operation in all draws": best,
            "CPU minutes, with the embeddings that were not there yet": sum(each["CPU s"] for each in trials) / 60,
            "quick": quick,
        },
        rows=rows,
        targets=[
            common.target(
                "points below the oracle of each draw, mean", "<= 1", mean(oracle) - mean(chosen) if whole else None
            ),
            common.target(
                "points above no augmentation, worst draw",
                ">= -0.5",
                min(own - base for own, base in zip(chosen, none, strict=True)) if whole else None,
            ),
        ],
    )


def _row(name: str, accuracies: Sequence[float], none: Sequence[float]) -> dict[str, Any]:
    apart = [own - base for own, base in zip(accuracies, none, strict=True)]
    return {
        "augment": name,
        "accuracy": statistics.mean(accuracies),
        "points above none": statistics.mean(apart),
        "ci95 over draws": t95(apart),
        "worst draw": min(apart),
    }


# ------------------------------------------------------------------------------------------------------------------ embeddings


class _Copier:
    """Embeddings of copies, (1, M, N, D), kept in a file for each draw and list of operations."""

    def __init__(self, train: Samples, embed: Embed, draw: int, *, quick: bool) -> None:
        self._train, self._embed, self._draw, self._quick = train, embed, draw, quick

    def __call__(self, operations: Augmentations) -> NDArray[np.float32]:
        text = " ".join(f"{each!r} {type(each).version}" for each in operations)
        name = hashlib.sha256(text.encode()).hexdigest()[:16]

        def made() -> NDArray[np.float32]:
            def seed(number: int) -> int:
                return int(hashlib.sha256(f"{self._draw} {text} {number}".encode()).hexdigest()[:14], 16)

            raw = augment_policy.copies_of(self._train, operations, augment_policy.COPIES, seed)
            return self._embed(raw.reshape(-1, *raw.shape[2:])).reshape(*raw.shape[:2], -1)

        return _held(f"{self._draw}-{name}", made, quick=self._quick)[None]


def data_of(draw: int, *, quick: bool) -> tuple[Samples, Samples, Embed]:
    """Training examples, test images, and what embeds them."""
    if quick:
        digits = datasets.digits(size=16).open()
        mine = first_of_each_class(digits.labels, LABELS, draw)
        rest = np.flatnonzero(~mine)
        return (
            digits.take(np.flatnonzero(mine)),
            digits.take(rest),
            lambda x: x.reshape(len(x), -1).astype(np.float32) / 255,
        )
    train, test = (datasets.cifar10(split=split).open() for split in ("train", "test"))  # type: ignore[arg-type]
    mine = np.flatnonzero(first_of_each_class(train.labels, LABELS, draw))
    return train.take(mine), test.take(np.flatnonzero(first_of_each_class(test.labels, TEST, 0))), _encoder()


_SESSION: list[Embed] = []


def _encoder() -> Embed:
    """Embeds images in ONNX Runtime on one thread."""
    from mapsto.nn.export.onnx import to_onnx
    from mapsto.nn.export.runtimes.onnxruntime import runner
    from mapsto.nn.network.preprocess import prepare

    if not _SESSION:
        network = networks.efficientnet_lite0(size=112)(seed=0)
        before, run = network.signature.preprocessing, runner(to_onnx(network), threads=1)

        def embed(images: NDArray[Any]) -> NDArray[np.float32]:
            parts = [run(prepare(images[start : start + 50], before).numpy()) for start in range(0, len(images), 50)]
            return np.concatenate(parts).astype(np.float32)

        _SESSION.append(embed)
    return _SESSION[0]


def _held(name: str, make: Callable[[], NDArray[np.float32]], *, quick: bool) -> NDArray[np.float32]:
    """Embeddings from their file, made where it is not there."""
    if quick:
        return make()
    file = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "augment_policy" / f"{name}.npy"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file.with_suffix(".part.npy"), make())
        file.with_suffix(".part.npy").replace(file)
    return np.load(file)


def _stamp() -> str:
    """What decides a trial: candidates, versions, and how they are judged."""
    known = [[f"{each!r} {type(each).version}" for each in tried] for tried in augment_policy.lists_for("images")]
    rule = [
        augment_policy.COPIES,
        augment_policy.COPIES_WEIGH,
        augment_policy.RULE,
        augment_policy.REPEATS,
    ]
    return hashlib.sha256(json.dumps([known, rule]).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main("--quick" in sys.argv)

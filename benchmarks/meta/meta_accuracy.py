"""Meta-learners beside the figures of their papers: one recipe a row in ``rows/``, resumable, its small result kept.

mapsto bench meta_accuracy --only protonet_omniglot
mapsto bench meta_accuracy --only resnet12 --device cuda

Without ``--only`` every row runs, which takes hours; a row that was never run is printed as "not run". Whoever stops a run goes on with
the same command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common

from mapsto.errors import DomainError
from mapsto.report.build import metrics_of

HERE = Path(__file__).parent
ROWS = HERE / "rows"
KEPT = common.RESULTS / "meta"

FIGURES = {"w5s1": "5-way 1-shot", "w5s5": "5-way 5-shot", "w20s1": "20-way 1-shot", "w20s5": "20-way 5-shot"}
"""The name of a report in a row's recipe → the figure it stands for."""

PRETRAINED = ", pretrained"
"""After the name of a figure whose recipe has a step ``as: pretrained``, at whose weights the learner begins."""

RANDOM = ", characters at random"
"""After the name of a figure on characters that were drawn whatever their alphabet; the others are on Vinyals' split."""

Figure = tuple[float | None, float]
"""Accuracy in % and its 95 % interval as the paper states them: 0 where we know of none, None for a figure not looked up yet."""

MAML_CIFARFS = "as reported by Lee et al., 2019, table 2, for a network of 32 channels in each block; ours has 64"

PAPERS: dict[str, tuple[str, str, dict[str, Figure]]] = {
    "protonet_omniglot": (
        "protonet",
        "Snell, Swersky and Zemel, 2017, table 1",
        {"w5s1": (98.8, 0), "w5s5": (99.7, 0), "w20s1": (96.0, 0), "w20s5": (98.9, 0)},
    ),
    "maml_omniglot_5w1s": ("maml", "Finn, Abbeel and Levine, 2017, table 1", {"w5s1": (98.7, 0.4)}),
    "maml_omniglot_5w5s": ("maml", "Finn, Abbeel and Levine, 2017, table 1", {"w5s5": (99.9, 0.1)}),
    "maml_omniglot_20w1s": ("maml", "Finn, Abbeel and Levine, 2017, table 1", {"w20s1": (95.8, 0.3)}),
    "maml_omniglot_20w5s": ("maml", "Finn, Abbeel and Levine, 2017, table 1", {"w20s5": (98.9, 0.2)}),
    "r2d2_omniglot": (
        "r2d2",
        "Bertinetto et al., 2019",
        {"w5s1": (None, 0), "w5s5": (None, 0), "w20s1": (None, 0), "w20s5": (None, 0)},
    ),
    "reptile_omniglot_5w1s": ("reptile", "Nichol, Achiam and Schulman, 2018, table 2", {"w5s1": (95.39, 0)}),
    "reptile_omniglot_5w5s": ("reptile", "Nichol, Achiam and Schulman, 2018, table 2", {"w5s5": (98.90, 0)}),
    "anil_omniglot_20w1s": ("anil", "Raghu et al., 2020, table 1", {"w20s1": (96.2, 0)}),
    "anil_omniglot_20w5s": ("anil", "Raghu et al., 2020, table 1", {"w20s5": (98.0, 0)}),
    "fomaml_omniglot_5w1s": ("fomaml", "Finn, Abbeel and Levine, 2017; Nichol et al., 2018", {"w5s1": (98.3, 0)}),
    "metasgd_omniglot_5w1s": ("metasgd", "Li et al., 2017, table 1", {"w5s1": (99.53, 0.26)}),
    "mamlpp_omniglot_5w1s": ("mamlpp", "Antoniou, Edwards and Storkey, 2019", {"w5s1": (99.47, 0)}),
    "relation_omniglot": (
        "relation",
        "Sung et al., 2018, table 1",
        {"w5s1": (99.6, 0.2), "w5s5": (99.8, 0.1), "w20s1": (97.6, 0.2), "w20s5": (99.1, 0.1)},
    ),
    "umtra_omniglot_5w1s": ("umtra", "Khodadadeh, Boloni and Shah, 2019, table 1", {"w5s1": (83.80, 0)}),
    "cactus_omniglot_5w1s": ("cactus", "Hsu, Levine and Finn, 2019, table 1", {"w5s1": (68.84, 0)}),
    "protonet_cifarfs": (
        "protonet",
        "as reported by Lee et al., 2019, table 2",
        {"w5s1": (55.5, 0.7), "w5s5": (72.0, 0.6)},
    ),
    "maml_cifarfs_5w1s": ("maml", MAML_CIFARFS, {"w5s1": (58.9, 1.9)}),
    "maml_cifarfs_5w5s": ("maml", MAML_CIFARFS, {"w5s5": (71.5, 1.0)}),
    "r2d2_cifarfs": (
        "r2d2",
        "as reported by Lee et al., 2019, table 2, for a network of 96, 192, 384 and 512 channels; ours has 64, 128, 256 and 512",
        {"w5s1": (65.3, 0.2), "w5s5": (79.4, 0.1)},
    ),
    "metaoptnet_cifarfs": (
        "metaoptnet",
        "Lee et al., 2019, which has no Conv4",
        {"w5s1": (None, 0), "w5s5": (None, 0)},
    ),
    "protonet_cifarfs_resnet12": (
        "protonet",
        "as reported by Lee et al., 2019, table 2",
        {"w5s1": (72.2, 0.7), "w5s5": (83.5, 0.5)},
    ),
    "metaoptnet_cifarfs_resnet12": ("metaoptnet", "Lee et al., 2019, table 2", {"w5s1": (72.0, 0), "w5s5": (84.2, 0)}),
}
"""Row → method, source, figures."""
ENTRIES = {
    name: entry
    for row, entry in PAPERS.items()
    for name in (row, f"{row}_pretrained", f"{row}_random")
    if name == row or (ROWS / f"{name}.yaml").is_file()
}
"""The same with the further recipes of some rows."""


def main(quick: bool = False, only: str = "", device: str = "cpu") -> dict[str, Any]:
    chosen = [only] if only in ENTRIES else [row for row in ENTRIES if only in row]
    if not chosen:
        raise DomainError(f"no row has '{only}' in its name", hint=f"there are {', '.join(ENTRIES)}")
    for row in chosen:
        tree = run(row, quick=quick, device=device)
        if not quick:
            KEPT.mkdir(exist_ok=True)
            (KEPT / f"{row}.json").write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    tree = summary(quick=quick)
    common.show(tree["rows"])
    if not quick:
        common.save(tree)
        pages(tree["rows"])
    return tree


def summary(*, quick: bool) -> dict[str, Any]:
    """The kept results as one, with every processor that one was measured on."""
    rows, targets = table()
    tree = common.result("meta_accuracy", conditions={"quick": quick}, rows=rows, targets=targets)
    found = [json.loads(path.read_text(encoding="utf-8"))["environment"] for path in sorted(KEPT.glob("*.json"))]
    if found:
        tree["environment"]["cpu"] = " and ".join(sorted({environment["cpu"] for environment in found}))
    return tree


def run(row: str, *, quick: bool, device: str) -> dict[str, Any]:
    """One row: its recipe through ``mapsto run`` over a store of its own, so that a second call goes on."""
    home = Path(os.environ.get("MAPSTO_BENCH", "runs/bench")) / "meta"
    with tempfile.TemporaryDirectory() as trial:
        place = Path(trial) if quick else home
        command = [sys.executable, "-m", "mapsto", "run", str(ROWS / f"{row}.yaml"), "--device", device]
        command += ["--quick"] if quick else []
        subprocess.run(
            [*command, "--store", str(place / "store"), "--out", str(place / row)], check=True, env=os.environ
        )
        return small(json.loads((place / row / "report.json").read_text(encoding="utf-8")))


def small(report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a report: the figures, the training's time, the recipe and the environment."""
    found = metrics_of(report["steps"])
    trained = [step for step in report["steps"] if step["name"].startswith(("meta.", "train."))]
    return {
        "schema": 1,
        "name": report["name"],
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": report["environment"],
        "seed": report["seed"],
        "metrics": {
            name: {key: metric[key] for key in ("value", "unit", "ci95", "n")}
            for name, metric in found.items()
            if metric["unit"] == "%"
        },
        "train_minutes": sum(step["seconds"] for step in trained) / 60,
        "recipe": report["recipe"]["yaml"],
    }


def table() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Paper against ours, from the kept results; what was not run has no figure."""
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    for row, (method, source, figures) in ENTRIES.items():
        recipe = (ROWS / f"{row}.yaml").read_text(encoding="utf-8")
        kind = (PRETRAINED if "as: pretrained" in recipe else "") + (RANDOM if "split: random_test" in recipe else "")
        path = KEPT / f"{row}.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        data = "CIFAR-FS" if "cifarfs" in row else "Omniglot"
        data += ", ResNet-12" if "resnet12" in row else ""
        for name, (paper, interval) in figures.items():
            metric = _metric(kept, name)
            what = f"{method}, {data}, {FIGURES[name]}{kind}"
            rows.append(
                {
                    "what": what,
                    "paper": paper,
                    "paper ci95": interval or None,
                    "ours": metric.get("value"),
                    "ci95": metric.get("ci95"),
                    "n": metric.get("n"),
                    **{by: _metric(kept, name, by).get("value") for by in ("transductive", "inductive")},
                    "minutes": None if kept is None else kept["train_minutes"],
                    "gpu": None if kept is None else kept["environment"].get("gpu"),
                    "row": row,
                    "source": source,
                }
            )
            if paper is None:
                continue
            bound = f">= {round(paper - interval, 2):g}"
            targets.append(common.target(what, bound, round(metric["value"], 2) if metric else None))
    return rows, targets


def _metric(kept: Mapping[str, Any] | None, name: str, by: str = "accuracy") -> Mapping[str, Any]:
    """A metric of a report; empty where it was not run, or not asked for."""
    found = kept["metrics"] if kept is not None else {}
    return next((metric for path, metric in found.items() if path.endswith(f".{name}.{by}")), {})


def pages(rows: list[dict[str, Any]]) -> None:
    """``benchmarks/meta/<method>.md``: paper vs ours, the recipe, and the line that runs it again."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        methods.setdefault(row["what"].partition(",")[0], []).append(row)
    for method, found in methods.items():
        lines = [
            f"# {method}: paper vs ours",
            "",
            "Written by `benchmarks/meta/meta_accuracy.py`; do not edit.",
            "",
            "| figure | paper, % | ours ± CI95, % | transductive, % | inductive, % | episodes | minutes of training | run it again |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in found:
            paper = "not looked up" if row["paper"] is None else f"{row['paper']:g}"
            paper += f" ± {row['paper ci95']:g}" if row["paper ci95"] else ""
            ours = "not run" if row["ours"] is None else f"{row['ours']:.2f} ± {row['ci95']:.2f}"
            minutes = "" if row["minutes"] is None else f"{row['minutes']:.0f}"
            minutes += f" on one {row['gpu']}" if row["gpu"] else ""
            device = " --device cuda" if "resnet12" in row["row"] else ""
            again = f"`mapsto bench meta_accuracy --only {row['row']}{device}`"
            what = row["what"].partition(", ")[2]
            modes = " | ".join("" if row[by] is None else f"{row[by]:.2f}" for by in ("transductive", "inductive"))
            lines.append(f"| {what} | {paper} | {ours} | {modes} | {row['n'] or ''} | {minutes} | {again} |")
        lines += ["", *(f"- {source}" for source in dict.fromkeys(row["source"] for row in found))]
        if any(PRETRAINED in row["what"] for row in found):
            lines.append(
                "- pretrained: its first weights are those that an earlier step of the same recipe found, where the paper draws "
                "them; the minutes count both trainings"
            )
        if any(row["what"].endswith(RANDOM) for row in found):
            lines.append(
                "- characters at random: 1,200 for training and 423 for tests whatever their alphabet, and no two of a task turns of "
                "one, as in the paper; the other figures are on the split of Vinyals et al., 2016, where nearly all characters of the "
                "tests are of alphabets that training did not show, and a turned character is a class of its own"
            )
        for row in dict.fromkeys(row["row"] for row in found):
            lines += ["", f"Recipe: [rows/{row}.yaml](rows/{row}.yaml)"]
        (HERE / f"{method}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main("--quick" in sys.argv, next((word for word in sys.argv[1:] if not word.startswith("-")), ""))

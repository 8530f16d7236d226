"""The VGG of the founding idea on CIFAR-10: a pruned copy taught through Lightning, by a recipe of four lines, and by `mapsto compress`.

mapsto bench vgg_example
mapsto bench vgg_example --only "Euclidean distance"

What runs is the tutorial itself, the cells of ``docs/tutorials/compressing_a_vgg_with_lightning.py`` with ``FULL = True``, so that the
tables of that page are what its code gives. Each part is a trial that is kept (`_shared.Cells`); trained networks lie in a store and
Lightning's checkpoints beside it, so that a stop costs little, and parts may run at once in processes of their own. One core, one seed.
The 10,000 test images are only reported; a training is watched by 2,000 images, and `mapsto compress` chooses by a fifth of 5,000 that
the teacher has not learnt from. Goals were set before the first run.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

import common
from compress import _shared

from mapsto.errors import DomainError

SOURCE = common.RESULTS.parents[1] / "docs" / "tutorials" / "compressing_a_vgg_with_lightning.py"
WAYS = ("labels alone", "Euclidean distance", "cosine distance")
PARTS = ("teacher", *WAYS, "recipe", "compress", "compared")
"""Trials, in the order in which they need one another."""
NAMES = {
    "teacher": "teacher",
    **{way: f"Lightning, {way}" for way in WAYS},
    "recipe": "recipe, int8",
    "compress": "mapsto compress",
}
"""What the tutorial calls the network of a trial; its last trial weighs and times all of them."""


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    wanted = [part for part in PARTS if only in part]
    if quick and not only:
        wanted = [WAYS[0], PARTS[-1]]  # the latter runs every cell
    if not wanted:
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join(PARTS))
    cells = _shared.Cells("vgg_example", quick=quick)
    before = {name: os.environ.get(name) for name in ("MAPSTO_STORE",)}
    os.environ["MAPSTO_STORE"] = str((cells.folder / "store").resolve())
    try:
        for part in wanted:
            cells.measured((part,), lambda part=part: Page(cells, quick=quick).trial(part))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return result(cells, quick=quick)


class Page:
    """The tutorial, section by section."""

    def __init__(self, cells: _shared.Cells, *, quick: bool) -> None:
        sys.path.insert(0, str(SOURCE.parents[2] / "scripts"))
        import matplotlib as mpl
        from notebooks import cells as cells_of

        mpl.use("Agg")
        text = SOURCE.read_text(encoding="utf-8")
        if not quick:
            text = text.replace("FULL = False", "FULL = True", 1)
        self._sections: dict[int, list[str]] = {}
        number = 0
        for kind, body in cells_of(text):
            if kind == "markdown" and body.startswith("## "):
                number = int(body.removeprefix("## ").partition(".")[0])
            if kind == "code":
                self._sections.setdefault(number, []).append(body)
        self.names: dict[str, Any] = {"__name__": SOURCE.stem}
        self.run(0)
        folder = (cells.folder / "vgg").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.names["folder"] = folder

    def run(self, *numbers: int) -> None:
        for number in numbers:
            for body in self._sections[number]:
                exec(compile(body, f"{SOURCE.name}, section {number}", "exec"), self.names)

    def trial(self, part: str) -> dict[str, Any]:
        """One part's figures, and the CPU seconds that it took beyond what the store held."""
        began = _cpu_seconds()
        names = self.names
        if part == "teacher":
            self.run(1)
            found = {"accuracy": names["accuracy"](names["teacher"])}
        elif part in WAYS:
            self.run(1, 2, 3)
            names["WAYS"] = {part: names["WAYS"][part]}
            self.run(4)
            found = {"epochs": names["tables"][part], "accuracy": names["accuracy"](names["students"][part])}
        elif part == "recipe":
            self.run(1, 5)
            found = {"accuracy": names["accuracy"](names["int8"])}
        elif part == "compress":
            self.run(1, 6)
            found = {"accuracy": names["figures"]["chosen.test.accuracy"]}
        else:
            self.run(1, 2, 3, 4, 5, 6, 7)
            found = {"networks": names["rows"]}
        return {**found, "CPU s": _cpu_seconds() - began}


def _cpu_seconds() -> float:
    """Of this process and of the commands that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def result(cells: _shared.Cells, *, quick: bool) -> dict[str, Any]:
    found = {part: cells.get(part) for part in PARTS}
    rows: list[dict[str, Any]] = []
    for way in WAYS:
        rows += [
            {
                "training, epoch": f"{way}, {row['epoch']}",
                "learning rate": row["learning rate"],
                "train loss": row["train_loss"],
                "validation loss": row["val_loss"],
                "validation images, % right": row["val_accuracy"],
            }
            for row in (found[way] or {"epochs": []})["epochs"]
        ]
    networks = {
        name: {"network": name, "accuracy %": trial["accuracy"]}
        for part, name in NAMES.items()
        if (trial := found[part]) is not None
    }
    networks |= {row["network"]: row for row in (found["compared"] or {"networks": []})["networks"]}
    rows += [{"VGG" if name == "network" else name: value for name, value in row.items()} for row in networks.values()]
    spent = [trial["CPU s"] for trial in found.values() if trial is not None]
    minutes = sum(spent) / 60 if len(spent) == len(PARTS) else None
    tree = common.result(
        "vgg_example",
        conditions={
            "teacher": "VGG-11 of width 16 in four stages, eight epochs of 20,000 images",
            "students": "a quarter of the multiply-accumulates, eight epochs of the same images; mapsto compress: twenty of 4,000 others",
            "seeds": [0],
            "judged on": "CIFAR-10's test images",
            "timed": "ONNX Runtime, one thread, one image",
            "quick": quick,
        },
        rows=rows,
        targets=targets(networks, minutes),
    )
    return common.finished(tree, quick=quick)


def targets(networks: dict[str, dict[str, Any]], minutes: float | None) -> list[dict[str, Any]]:
    def of(name: str, figure: str = "accuracy %") -> float | None:
        return networks.get(name, {}).get(figure)

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    teacher, labels = of("teacher"), of("Lightning, labels alone")
    distances = [of(f"Lightning, {way}") for way in WAYS[1:]]
    best = None if None in distances else max(each for each in distances if each is not None)
    small = "mapsto compress"
    return [
        common.target(
            "points that the better distance to the teacher gains over labels alone", ">= 0", less(best, labels)
        ),
        common.target("points that the better one loses beside its teacher", "<= 3", less(teacher, best)),
        common.target(
            "points that the recipe's int8 network loses beside the teacher", "<= 3", less(teacher, of("recipe, int8"))
        ),
        common.target(
            "the recipe's int8 network: times as fast as the teacher",
            ">= 2",
            of("recipe, int8", "times as fast as the teacher"),
        ),
        common.target("mapsto compress: points lost beside the teacher", "<= 2", less(teacher, of(small))),
        common.target("mapsto compress: kB of the ONNX file", "<= 150", of(small, "kB of its ONNX file")),
        common.target(
            "mapsto compress: times as fast as the teacher", ">= 2", of(small, "times as fast as the teacher")
        ),
        common.target("CPU minutes of the whole", "<= 30", minutes),
    ]


if __name__ == "__main__":
    arguments = _shared.arguments()
    main(quick=arguments["quick"], only=arguments["only"])

"""A ResNet-20 made robust in fifteen CPU minutes of Fast-AT, and what int8, pruning and ensembles leave of it.

mapsto bench robust_cifar10
mapsto bench robust_cifar10 --only choose

The weights are Y. Idelbayev's (91.73 % of the test images, none of them under attack). Training is `train.adversarial` with its default
method, one step of attack from a random start at 8/255; its rate and batch were chosen by ``--only choose`` on 512 held-out training images
under PGD-10, never on test images. All is judged on the same 1,000 test images. CPU time is that of the process, not of the clock. What is
done is kept, trainings in a store with their checkpoints, so that the same command goes on after a stop.
"""

from __future__ import annotations

import time
from typing import Any

import common
from compress import _shared

from mapsto import augment, datasets, train
from mapsto.context import Numerics
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.run.executor import execute

EPSILON = 8 / 255
CANDIDATES: dict[str, dict[str, Any]] = {
    "batch 128, rate 0.1": {"batch_size": 128, "learning_rate": 0.1},
    "batch 64, rate 0.1": {"batch_size": 64, "learning_rate": 0.1},
}
CHOSEN = "batch 64, rate 0.1"
EPOCHS = 2


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    if only not in ("", "choose", *CANDIDATES):
        raise DomainError(f"there are no rows '{only}'", where="--only", hint=", ".join(("choose", *CANDIDATES)))
    cells = _shared.Cells("robust_cifar10", quick=quick)
    names = list(CANDIDATES) if only == "choose" else [only or CHOSEN]
    rows = [{"training": name, **trained(name, cells, quick=quick)[1]} for name in names]
    common.show(rows)
    return {"rows": rows}


def trained(name: str, cells: _shared.Cells, *, quick: bool) -> tuple[Network, dict[str, Any]]:
    """The robust network, and what its training came to on held-out images."""
    held_out = _shared.HELD_OUT
    learn: Any = datasets.cifar10(split="train", holdout=held_out)
    judge: Any = datasets.cifar10(split="validation", holdout=held_out)
    if quick:
        learn, judge = (datasets.subset(data=data, per_class=13) for data in (learn, judge))
    step = train.adversarial(
        data=learn,
        validation=judge,
        epochs=EPOCHS,
        epsilon=EPSILON,
        augment=(augment.flip(),),
        schedule="onecycle",
        **CANDIDATES[name],
    )
    began, key = time.process_time(), ("training", name)
    before = cells.get(*key) or {}
    run = execute(_shared.resnet(20) >> step, store=cells.folder / "store", seed=0, numerics=Numerics(threads=1))
    found = before
    if not run.steps[-1].hit or not before:
        spent = before.get("CPU seconds", 0.0) + time.process_time() - began
        found = {"CPU seconds": spent, "curves": str(run.steps[-1].curves)[-1500:]}
        cells.keep(key, found)
    return run.value(), found


if __name__ == "__main__":
    main(**_shared.arguments())

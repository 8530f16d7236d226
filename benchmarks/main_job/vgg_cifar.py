"""The recipe `vgg_cifar` whole, on one GPU: what is left of VGG-16 after pruning, distillation and quantization on CIFAR-10.

mapsto bench vgg_cifar
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import torch

from mapsto.errors import DomainError


def main(quick: bool = False) -> dict[str, Any]:
    if not quick and not torch.cuda.is_available():
        raise DomainError(
            "the whole of it takes one GPU, and there is none here", hint="give --quick for a trial on the CPU"
        )
    how = ["--quick"] if quick else ["--device", "cuda", "--precision", "bf16-mixed"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "mapsto",
            "run",
            "vgg_cifar",
            "--store",
            f"{folder}/store",
            "--out",
            f"{folder}/out",
            *how,
        ]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        wall = time.perf_counter() - began
        report = json.loads(Path(folder, "out", "report.json").read_text(encoding="utf-8"))
    from mapsto.report.build import metrics_of

    rows = [
        {
            "what": path,
            "unit": metric["unit"],
            "value": metric["value"],
            "ci95": metric.get("ci95"),
            "n": metric.get("n"),
        }
        for path, metric in metrics_of(report["steps"]).items()
    ]
    targets = [{key: entry[key] for key in ("what", "goal", "measured", "met")} for entry in report["targets"]]
    targets.append(common.target("minutes on one GPU, the whole recipe", "<= 20", None if quick else wall / 60))
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    tree = common.result(
        "vgg_cifar", conditions={"seed": report["seed"], "device": device, "quick": quick}, rows=rows, targets=targets
    )
    return common.finished(tree, quick=quick)


if __name__ == "__main__":
    main("--quick" in sys.argv)

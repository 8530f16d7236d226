"""What the runner does: it answers, and makes and keeps a head of examples."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.nn.export.runners.open_onnxruntime import opened
from mapsto.nn.export.runners.read_image import read

__all__ = ["main", "model_of", "opened_package", "predict"]

# ---- below this line: part of the runner

FOLDER = Path(__file__).resolve().parent


def opened_package() -> tuple[dict[str, Any], Any]:
    """The manifest, and the model as a function from samples (N, ...) to outputs (N, ...)."""
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    for name in [name for name in manifest["files"] if name.startswith(("model.", "tokenizer."))]:
        digest = hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()
        if digest != manifest["files"][name]["sha256"]:
            raise SystemExit(f"{name} is not the file that was exported: copy the package again")
    run = opened(FOLDER)

    def outputs(samples: Any) -> Any:
        return np.concatenate([run(samples[i : i + 1]) for i in range(len(samples))])

    return manifest, outputs


def model_of(manifest: dict[str, Any]) -> str:
    """What tells the encoder that a head was made for from others."""
    return manifest["files"][manifest["model"]]["sha256"]


def predict(inputs: list[Path], head: Path | None) -> int:
    """Write a line of JSON for each sample; how many inputs could not be used."""
    manifest, run = opened_package()
    signature = manifest["signature"]
    classes, kind, layer = signature["classes"], signature.get("answers", "classes"), None
    if head is not None:
        layer = json.loads(head.read_text(encoding="utf-8"))
        classes, kind = layer["classes"], "classes"
        if layer["model"] != model_of(manifest):
            raise SystemExit(f"{head} was made for another package: run adapt again")
    if classes is None or kind == "tags" or len(signature["outputs"][0]["shape"]) != 2:
        raise SystemExit(
            "it gives " + ("embeddings: run adapt first" if classes is None else "maps or tags: ask mapsto-runtime")
        )
    failed = 0
    for path in inputs:
        try:
            outputs = run(read(path, signature)).astype(np.float64)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            failed += 1
            continue
        if layer is not None:
            outputs = outputs @ np.array(layer["weight"]).T + np.array(layer["bias"])
        for index, row in enumerate(outputs):
            sys.stdout.write(json.dumps({"file": str(path), "index": index, **answer(row, classes, kind)}) + "\n")
    return failed


def answer(row: Any, classes: list[str], kind: str) -> dict[str, Any]:
    """The class and the scores: probabilities, the highest first, or of a regression its values."""
    if kind == "values":
        return {"label": None, "scores": dict(zip(classes, row.tolist(), strict=True))}
    powers = np.exp(row - row.max())
    p = powers / powers.sum() if kind == "classes" else 1 / (1 + np.exp(-row.clip(-700, 700)))
    scores = {classes[i]: float(p[i]) for i in np.argsort(-p, kind="stable")}
    there = [name for name, score in scores.items() if score >= 0.5]
    return {"label": next(iter(scores)) if kind == "classes" else ", ".join(there) or "none", "scores": scores}


def main(adapt: Callable[[Path, Path], None] | None = None) -> int:
    """The command line; `adapt` makes a head of examples, where the package holds a learner."""
    parser = ArgumentParser(description="Answers with the package in whose folder this file lies.")
    parser.add_argument("command", choices=["predict", *(["adapt"] if adapt else [])])
    parser.add_argument("inputs", nargs="+", type=Path, help="files; of adapt a folder that holds CLASS/FILE")
    parser.add_argument("--head", type=Path, help="where the head of adapt is kept; by default beside the package")
    if adapt is None and sys.argv[1:2] == ["adapt"]:
        parser.error("this package holds no learner that adapts here: make it of a prototype or ridge learner")
    given = parser.parse_args()
    beside = FOLDER.with_name(f"{FOLDER.name}.head.json")
    if given.command == "adapt" and adapt is not None:
        adapt(given.inputs[0], given.head or beside)
        return 0
    known = beside if adapt is not None and beside.exists() else None
    return 1 if predict(given.inputs, given.head or known) else 0

"""The head of a prototype or a ridge learner, as `mapsto.nn.meta.adaptation.centroid` and `ridge` make it, in NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.nn.export.runners.command import model_of, opened_package
from mapsto.nn.export.runners.read_image import read

__all__ = ["adapt", "head_of"]

# ---- below this line: part of the runner


def head_of(features: Any, members: Any, rule: dict[str, Any]) -> tuple[Any, Any]:
    """Weight (classes, D) and bias (classes,) from embeddings (S, D) and whether each is of each class, (S, classes)."""
    x, scale = features.astype(np.float64), rule["scale"]
    if rule["method"] == "ridge":  # score = scale * W x + bias with W of least squares and a penalty on its squares
        x = np.concatenate([x, np.ones((len(x), 1))], 1)
        solution = x.T @ np.linalg.solve(x @ x.T + rule["penalty"] * np.eye(len(x)), members)
        return scale * solution[:-1].T, scale * solution[-1] + rule["bias"]
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    cosine = rule["distance"] == "cosine"
    means = members.T @ (x / np.maximum(norms, 1e-12) if cosine else x) / members.sum(0)[:, None]
    if cosine:
        means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return 2 * scale * means / max(norms.mean(), 1e-12), np.zeros(len(means))
    return 2 * scale * means, -scale * np.square(means).sum(1)  # minus the squared distance to the class's mean


def adapt(examples: Path, head: Path) -> None:
    """A classifier of the classes in `examples`, whose folders CLASS hold files, kept as `head`."""
    manifest, run = opened_package()
    classes = sorted(path.name for path in examples.iterdir() if path.is_dir() and path.name[0] != ".")
    samples, numbers = [], []
    for number, name in enumerate(classes):
        for path in sorted(path for path in (examples / name).iterdir() if path.name[0] != "."):
            samples.append(run(read(path, manifest["signature"])))
            numbers += [number] * len(samples[-1])
    if len(set(numbers)) < max(2, len(classes)):
        raise SystemExit(f"{examples}: folders of two classes or more with an example in each are wanted")
    weight, bias = head_of(np.concatenate(samples), np.eye(len(classes))[numbers], manifest["adaptation"]["head"])
    kept = {"classes": classes, "weight": weight.tolist(), "bias": bias.tolist(), "model": model_of(manifest)}
    head.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")

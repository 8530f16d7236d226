"""From a network, data and a target to a recipe that finds the best small network: what ``mapsto compress`` runs.

One branch for each share of the work: prune, distil from the original, quantize. The most accurate branch that meets the target is
exported. All choices are made on a held-out part of the data; test data, where given, are only reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from mapsto.errors import DataError, SpecError, nearest
from mapsto.nn import runtime as runtimes

__all__ = ["Target", "compression_recipe", "data_node", "held_out", "model_nodes", "parse_target"]

_UNITS: dict[str, dict[str, float]] = {
    "latency": {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3},
    "bytes": {"": 1.0, "b": 1.0, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2},
    "macs": {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9},
    "parameters": {"": 1.0, "k": 1e3, "m": 1e6},
}
_METRICS = {
    "latency": ("evaluate.latency", "p50"),
    "bytes": ("evaluate.size", "bytes"),
    "macs": ("evaluate.size", "macs"),
    "parameters": ("evaluate.size", "parameters"),
}
_EXPORTS = {"onnxruntime": "export.onnx"}
"""Where a runtime's export has another name than the runtime."""
_PER_CLASS = 5


@dataclass(frozen=True)
class Target:
    """A limit on what the small network costs."""

    kind: str
    """``latency`` (ms, one sample, one thread), ``bytes``, ``macs`` or ``parameters``."""
    limit: float
    text: str
    """As it was given."""


def parse_target(text: str) -> Target:
    """``latency=0.5ms``, ``bytes=200kB``, ``macs=10M`` or ``parameters=50k``.

    Raises `SpecError` for another cost, another unit, or a limit that is not above 0.

    >>> parse_target("latency=500us").limit, parse_target("bytes=200kB").limit
    (0.5, 200000.0)
    """
    kind, sign, rest = text.partition("=")
    if kind not in _UNITS or not sign:
        raise SpecError(
            f"'{text}' is no target",
            where="--target",
            hint=f"{nearest(kind, _UNITS)}; as in latency=0.5ms or bytes=200kB",
        )
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?\d+)?)\s*([a-zµ]*)\s*", rest.lower())
    factor = _UNITS[kind].get(found[2]) if found else None
    if found is None or factor is None or found[1].count(".") > 1 or float(found[1]) <= 0:
        units = ", ".join(unit or "none" for unit in _UNITS[kind])
        raise SpecError(f"'{rest}' is no limit on {kind}", where="--target", hint=f"a number above 0; units: {units}")
    return Target(kind, float(found[1]) * factor, text)


def data_node(text: str) -> dict[str, Any]:
    """A data set as a recipe writes it, from a folder of class folders, an ``.npz`` archive, a table's file, or YAML.

    >>> data_node("digits"), data_node("{cifar10: {split: train}}")
    ({'digits': {}}, {'cifar10': {'split': 'train'}})
    """
    from mapsto import discovery

    place = Path(text)
    if place.is_dir():
        return {"images": {"folder": str(place.resolve())}}
    if place.is_file():
        kinds = {".npz": "arrays", ".csv": "table", ".tsv": "table", ".parquet": "table"}
        if place.suffix.lower() not in kinds:
            raise DataError(
                f"files of type '{place.suffix}' are not read here", where=text, hint=f"give {', '.join(kinds)}"
            )
        if kinds[place.suffix.lower()] == "table":
            raise SpecError(
                "a table needs its target",
                where=text,
                hint=f"as in --data '{{table: {{file: {text}, target: COLUMN}}}}'",
            )
        return {"arrays": {"file": str(place.resolve())}}
    tree = yaml.safe_load(text)
    node = {tree: {}} if isinstance(tree, str) else tree
    known = discovery.entries("data")
    if not isinstance(node, dict) or len(cast("dict[str, Any]", node)) != 1:
        raise SpecError("neither a path nor one data set", where=text, hint="as in '{cifar10: {split: train}}'")
    ((name, fields),) = cast("dict[str, Any]", node).items()
    if name not in known:
        raise DataError(f"no such folder, file or data set as '{name}'", where=text, hint=nearest(str(name), known))
    return {name: fields or {}}


def model_nodes(text: str, step: str | None = None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data entries and the steps that give the network: those of a run or a recipe, or a checkpoint.

    Parameters
    ----------
    text
        The --out folder of a run, a recipe's file or name, or ``package.module:factory=weights.pt``.
    step
        The label of the step whose network is taken; by default the last step that gives one.

    Raises
    ------
    SpecError
        The recipe has no such step at its top level.
    DataError
        There is no such run, recipe or file.
    """
    factory, sign, file = text.partition("=")
    if sign and ":" in factory:
        if not Path(file).is_file():
            raise DataError("there is no such file", where=file, hint="give a .pt, .pth or .safetensors file")
        return {}, [{"networks.checkpoint": {"factory": factory, "file": str(Path(file).resolve())}}]
    tree = cast("dict[str, Any]", yaml.safe_load(_recipe_text(text)))
    steps = cast("list[dict[str, Any]]", tree["steps"])
    labels = [str(node.get("as", next(iter(node)))) for node in steps]
    if step is not None and step not in labels:
        raise SpecError(f"there is no step '{step}'", where=text, hint=nearest(step, labels))
    ends = ("export.", "choose.")
    last = (
        labels.index(step)
        if step
        else max(at for at, node in enumerate(steps) if not next(iter(node)).startswith(ends))
    )
    taken = [{key: value for key, value in node.items() if key != "observe"} for node in steps[: last + 1]]
    return dict(tree.get("data", {})), taken


def _recipe_text(text: str) -> str:
    from mapsto import report as reports
    from mapsto.spec import dump, load_recipe

    place = Path(text)
    if (place / "report.json").is_file():
        return str(reports.load(place)["recipe"]["yaml"])
    return dump(load_recipe(text))


def held_out(node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data to learn from and the data to choose by: a fifth of each class, at most 100 and at least five samples.

    Raises `DataError` for fewer than ten samples of a class.
    """
    import numpy as np

    from mapsto.data.checks import require_classes
    from mapsto.spec import parse_recipe

    text = yaml.safe_dump({"schema": 1, "data": {"all": node}, "steps": [{"networks.mlp": {"data": "$all"}}]})
    samples = require_classes(parse_recipe(text).data["all"].open(), where="--data")
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    least = int(counts.min())
    if least < 2 * _PER_CLASS:
        name = samples.classes[int(counts.argmin())]
        raise DataError(
            f"class '{name}' has {least} samples", where="--data", hint=f"give at least {2 * _PER_CLASS} of each class"
        )
    share = max(_PER_CLASS, min(100, least // 5))
    chosen: dict[str, Any] = {"data": "$all", "per_class": share}
    return {"subset": {**chosen, "part": "rest"}}, {"subset": chosen}


def compression_recipe(
    *,
    model: tuple[dict[str, Any], list[dict[str, Any]]],
    data: dict[str, Any],
    test: dict[str, Any] | None,
    target: Target,
    shares: tuple[float, ...],
    epochs: int,
    seed: int = 0,
    runtime: str = "onnxruntime",
) -> str:
    """The recipe as YAML.

    Parameters
    ----------
    model
        As `model_nodes` gives it.
    shares
        Shares of the original's multiply-accumulates that are tried, each in (0, 1); 1 leaves it whole.
    epochs
        Of distillation in each branch.
    runtime
        What latency is measured in and the package is for, as `mapsto.nn.runtime.names` has it.

    Raises `SpecError` for a runtime that is not known, `DataError` for fewer than ten samples of a class.
    """
    known = runtimes.names()
    if runtime not in known:
        raise SpecError(f"there is no runtime '{runtime}'", where="--runtime", hint=nearest(runtime, known))
    entries, steps = model
    learn, check = held_out(data)
    accuracy, size = {"evaluate.accuracy": {"data": "$check"}}, {"evaluate.size": {}}
    timed = {"evaluate.latency": {"runtime": runtime, "rounds": 3, "all_threads": False}}
    observe: dict[str, Any] = {"accuracy": accuracy, "size": size, "latency": timed}
    if test is not None:
        observe["test"] = {"evaluate.accuracy": {"data": "$test"}}
    original = {**steps[-1], "as": steps[-1].get("as", "original"), "observe": observe}
    label = str(original["as"])
    branches = {f"share_{share:g}".replace(".", "_"): _branch(share, label, epochs, observe) for share in shares}
    cost, metric = _METRICS[target.kind]
    choose = {
        "by": {"evaluate.accuracy": {"data": "$check", "pictures": 0}},
        "within": {cost: timed.get(cost, {})},
        "cost": metric,
        "at_most": target.limit,
    }
    package = {"evaluate.latency": {"baselines": {"original": f"${label}"}, "all_threads": False}}
    tree = {
        "schema": 1,
        "name": "compress",
        "title": f"The most accurate small network within {target.text}",
        "seed": seed,
        "data": {
            **{name: node for name, node in entries.items() if name not in ("all", "learn", "check", "test")},
            "all": data,
            "learn": learn,
            "check": check,
            **({"test": test} if test is not None else {}),
        },
        "steps": [
            *steps[:-1],
            original,
            {"fork": branches},
            {"choose.best": choose, "as": "chosen", "observe": observe},
            {
                _EXPORTS.get(runtime, f"export.{runtime}"): {"data": "$check"},
                "as": "package",
                "observe": {"latency": package, "size": size},
            },
        ],
        "targets": [
            {"what": target.text, "metric": f"chosen.{cost.partition('.')[2]}.{metric}", "goal": f"<= {target.limit:g}"}
        ],
    }
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=120)


def _branch(share: float, original: str, epochs: int, observe: dict[str, Any]) -> list[dict[str, Any]]:
    distil = {
        "teacher": f"${original}",
        "data": "$learn",
        "validation": "$check",
        "epochs": epochs,
        "learning_rate": 0.02,
        "schedule": "onecycle",
        "weight_decay": 0.0005,
    }
    name = f"macs_{share:g}".replace(".", "_")
    steps: list[dict[str, Any]] = []
    if share < 1:
        steps += [
            {
                "prune.magnitude": {
                    "macs": share,
                    "ranking": "per_cost",
                    "max_prune": round(1 - share / 2, 4),
                    "multiple_of": 4,
                },
                "as": f"pruned_{name}",
            },
            {"prune.reconstruct": {"teacher": f"${original}", "data": "$learn"}, "as": f"refitted_{name}"},
            {"distill.logits": distil, "as": f"distilled_{name}"},
        ]
    return [*steps, {"quantize.static": {"data": "$learn"}, "as": name, "observe": observe}]

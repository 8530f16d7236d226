"""From a network, data and a target to a recipe that finds the best small network: what ``mapsto compress`` runs.

The whole network quantized, and for each share of the work two branches: prune, refit what is left, quantize; and the same with
distillation from the original before it is quantized, which on few or unlike data may do more harm than good. The most accurate branch
that meets the target is exported; one that cannot be made is left out. A learner stays one: what goes is chosen by its effect after
adaptation, and the student is taught to adapt as the original does. All choices are made on a held-out part of the data, for a learner on
classes that the branches were not trained with; test data, where given, are only reported. An encoder of texts is left with the words of
its texts, and is then tried in int8, with half of its layers, and as a static table of words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from mapsto import discovery
from mapsto.data.io.image_folder import splits_in
from mapsto.errors import DataError, SpecError, nearest
from mapsto.mapping import fields_of
from mapsto.nn.export import registry as runtimes
from mapsto.recipe.yaml_text import read_yaml
from mapsto.search.adapt import MIN_COUNT, TEXT_WAYS, TextWay, text_steps
from mapsto.search.recipe_text import recipe_text

if TYPE_CHECKING:
    from mapsto.kinds import Network, Samples, Signature

__all__ = [
    "BEST",
    "EXPORTS",
    "METRICS",
    "Limit",
    "Plan",
    "checkpoint_fields",
    "compression_recipe",
    "data_node",
    "folds_for",
    "held_out",
    "held_out_classes",
    "knows",
    "model_nodes",
    "parse_limit",
    "plan_for",
    "node_of_test_split",
    "said_of_original",
    "signature_of",
    "text_branch",
    "together",
]

_UNITS: dict[str, dict[str, float]] = {
    "latency": {"ms": 1.0, "us": 1e-3, "µs": 1e-3, "s": 1e3},
    "bytes": {"": 1.0, "b": 1.0, "k": 1e3, "m": 1e6, "kb": 1e3, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2},
    "macs": {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9},
    "parameters": {"": 1.0, "k": 1e3, "m": 1e6},
}
METRICS = {"latency": "p50", "bytes": "bytes", "macs": "macs", "parameters": "parameters"}
"""What `evaluate.exported` calls them."""
EXPORTS = {"onnxruntime": "export.onnx"}
"""Where a runtime's export has another name than the runtime."""
_PER_CLASS = 5
_CLASSES = 5
_LEAST = 2
"""Examples of each class, one to learn from and one to judge by."""
_CALIBRATION = 8
"""The fewest samples that ``quantize.static`` calibrates on."""
_MOST = 1e15
"""Of any limit, in its own unit."""
_LEAST_LATENCY = 1e-7
"""In milliseconds: less than a clock tick of any processor."""
_FOLDS = 5
"""Folds of cross-validation, where each class has as many examples."""
_BATCH, _LEAST_BATCH = 128, 16
"""What `distill.logits` has by default, and the smallest that is taken for few examples."""
_STEPS_OF_FEW = 8
"""Steps of an epoch that few examples are divided into, as far as the smallest batch allows."""
BEST = {
    "accuracy": "The most accurate small network",
    "agreement": "The small network that gives most pixels the class that the original gives them",
    "euclidean": "The small network whose maps are nearest to the original's",
}
"""What is looked for, by the number that decides."""
_EPOCHS = 10
"""Of distillation, where none are named."""
_WATCHED = ("validation", "validation_tasks")
"""Fields with what a training is watched by."""
_STEPS = 100
"""Steps that an epoch of distilling a learner has."""


@dataclass(frozen=True)
class Limit:
    """A limit on what the small network costs."""

    kind: str
    """``latency`` (ms, one sample, one thread), ``bytes``, ``macs`` or ``parameters``."""
    most: float
    text: str
    """As it was given."""


def parse_limit(text: str) -> Limit:
    """``latency=0.5ms``, ``bytes=200kB``, ``macs=10M`` or ``parameters=50k``.

    Raises `SpecError` for another cost, another unit, or a limit that nothing or everything keeps.

    >>> parse_limit("latency=500us").most, parse_limit("bytes=200kB").most
    (0.5, 200000.0)
    """
    kind, sign, rest = text.partition("=")
    if kind not in _UNITS or not sign:
        raise SpecError(
            f"'{text}' is no limit",
            where="--limit",
            hint=f"{nearest(kind, _UNITS)}; as in latency=0.5ms or bytes=200kB",
        )
    match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµ]*)\s*", rest.lower())
    factor = _UNITS[kind].get(match[2]) if match else None
    if match is None or factor is None or float(match[1]) <= 0:
        units = ", ".join(unit or "none" for unit in _UNITS[kind])
        raise SpecError(f"'{rest}' is no limit on {kind}", where="--limit", hint=f"a number above 0; units: {units}")
    most, least, unit = float(match[1]) * factor, *((_LEAST_LATENCY, " ms") if kind == "latency" else (1.0, ""))
    if not least <= most <= _MOST:
        raise SpecError(
            f"'{rest}' is a limit that {'no network keeps' if most < least else 'every network keeps'}",
            where="--limit",
            hint=f"{kind} of {least:g} to {_MOST:g}{unit}",
        )
    return Limit(kind, most, text)


def data_node(text: str, target: str | None = None, *, columns: Sequence[str] = ()) -> dict[str, Any]:
    """A data set as a recipe writes it, from a folder of class folders, an ``.npz`` archive, a table's file, or YAML.

    Of a folder that is laid out as ``photos/{train,test}/class`` it is the part to train on. `target` is the column of a table that is
    predicted, `columns` are those of texts.

    >>> data_node("digits"), data_node("{cifar10: {split: train}}")
    ({'digits': {}}, {'cifar10': {'split': 'train'}})
    """
    place = Path(text)
    if place.is_dir():
        learn: dict[str, Any] = {"split": "train"} if "train" in splits_in(place) else {}
        return {"images": {"folder": str(place.resolve()), **learn}}
    if place.is_file() and columns:
        if target is None:
            raise SpecError("texts need the column that is predicted", where=text, hint="name it: --target COLUMN")
        column = columns[0] if len(columns) == 1 else list(columns)
        fields = {"text": column, "target": target, "unlabelled": "leave_out"}
        return {"text": {"file": str(place.resolve()), **fields}}
    if place.is_file():
        kinds = {".npz": "arrays", ".csv": "table", ".tsv": "table", ".parquet": "table"}
        if place.suffix.lower() not in kinds:
            raise DataError(
                f"files of type '{place.suffix}' are not read here", where=text, hint=f"give {', '.join(kinds)}"
            )
        if kinds[place.suffix.lower()] == "table":
            if target is None:
                raise SpecError(
                    "a table needs the column that is predicted",
                    where=text,
                    hint="name it: --target COLUMN",
                )
            return {"table": {"file": str(place.resolve()), "target": target}}
        return {"arrays": {"file": str(place.resolve())}}
    tree = read_yaml(text, where="--data")[1]
    node = {tree: {}} if isinstance(tree, str) else tree
    known = discovery.entries("data")
    if not isinstance(node, dict) or len(cast("dict[str, Any]", node)) != 1:
        raise SpecError("neither a path nor one data set", where=text, hint="as in '{cifar10: {split: train}}'")
    ((name, fields),) = cast("dict[str, Any]", node).items()
    if name not in known:
        raise DataError(f"no such folder, file or data set as '{name}'", where=text, hint=nearest(str(name), known))
    return {name: fields or {}}


def node_of_test_split(text: str) -> dict[str, Any] | None:
    """The test split of a folder that is laid out as ``photos/{train,test}/class``; None where there is none."""
    place = Path(text)
    if not {"train", "test"} <= set(splits_in(place)):
        return None
    return {"images": {"folder": str(place.resolve()), "split": "test"}}


def model_nodes(
    text: str, step: str | None = None, *, data: dict[str, Any] | None = None, fields: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data entries and the steps that give the network: those of a run or a recipe, or a checkpoint.

    Parameters
    ----------
    text
        The --out folder of a run, a recipe's file or name, or ``package.module:factory=weights.pt``.
    step
        The label of the step whose network is taken; by default the last that gives one that nothing has quantized, which is what
        a package is made of, or was before it was made small.
    data
        Of a checkpoint: what gives the form of its input and the names of its classes.
    fields
        Further fields of ``networks.checkpoint``, such as mean and std.

    Raises
    ------
    SpecError
        The recipe has no such step at its top level, or `fields` are given for what is no checkpoint.
    DataError
        There is no such run, recipe or file.
    """
    factory, sign, file = text.partition("=")
    if sign and ":" in factory:
        if not Path(file).is_file():
            raise DataError("there is no such file", where=file, hint="give a .pt, .pth or .safetensors file")
        given = {"factory": factory, "file": str(Path(file).resolve()), **(fields or {})}
        if data is None:
            return {}, [{"networks.checkpoint": given}]
        return {"all": data}, [{"networks.checkpoint": {**given, "data": "$all"}}]
    if fields:
        raise SpecError(
            f"{', '.join(f'--{name}' for name in fields)} belongs to a checkpoint",
            where=text,
            hint="give package.module:factory=weights.pt, or leave it out",
        )
    tree = cast("dict[str, Any]", read_yaml(_recipe_text(text), where=text)[1])
    steps = cast("list[dict[str, Any]]", tree["steps"])
    labels = [str(node.get("as", next(iter(node)))) for node in steps]
    if step is not None and step not in labels:
        raise SpecError(f"there is no step '{step}'", where=text, hint=nearest(step, labels))
    last = labels.index(step) if step else _last_network(steps)
    taken = [{key: value for key, value in node.items() if key != "observe"} for node in steps[: last + 1]]
    return dict(tree.get("data", {})), taken


def _last_network(steps: Sequence[dict[str, Any]]) -> int:
    """The place of the last step that gives a network that nothing has quantized; of a run that begins with such a one, of the first."""
    found = 0
    for at, node in enumerate(steps):
        if _quantizes(node, _branch_after(steps, at)):
            break
        if not next(iter(node)).startswith(("export.", "fork")):
            found = at
    return found


def _quantizes(node: dict[str, Any], label: str | None = None) -> bool:
    """Whether a step is a quantization, or a fork with one in a branch: in the branch of that label, where it is known which is taken."""
    if "fork" not in node:
        return next(iter(node)).startswith("quantize.")
    branches: dict[str, list[dict[str, Any]]] = node["fork"]
    taken = branches.values() if label is None else [branches.get(label, [])]
    return any(_quantizes(step, _branch_after(branch, at)) for branch in taken for at, step in enumerate(branch))


def _branch_after(steps: Sequence[dict[str, Any]], at: int) -> str | None:
    """The branch of a fork that the step behind it takes; None where that is not known before it runs."""
    following = steps[at + 1] if at + 1 < len(steps) else {}
    return (following.get("choose.branch") or {}).get("label")


def _with_branches_taken(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps with the branch of a fork in its place: the one that is named, else the first of those that are chosen among."""
    found: list[dict[str, Any]] = []
    for at, node in enumerate(steps):
        if "fork" not in node:
            found.append(node)
            continue
        branches: dict[str, list[dict[str, Any]]] = node["fork"]
        choice: dict[str, Any] = next(iter(steps[at + 1].values())) if at + 1 < len(steps) else {}
        label = next(iter([choice["label"]] if "label" in choice else choice.get("among") or branches))
        found += _with_branches_taken(branches.get(label, []))
    return found


def signature_of(model: tuple[dict[str, Any], list[dict[str, Any]]]) -> Signature | None:
    """What a checkpoint's network takes and gives; None for mapsto's own, which are classifiers and learners.

    Raises what ``networks.checkpoint`` does.
    """
    from mapsto.context import SilentContext
    from mapsto.recipe.reader import parse_recipe

    entries, steps = model
    if not steps or "networks.checkpoint" not in steps[0]:
        return None
    tree = {"schema": 1, "data": entries, "steps": [{"networks.checkpoint": steps[0]["networks.checkpoint"]}]}
    network = SilentContext().apply(parse_recipe(yaml.safe_dump(tree, allow_unicode=True)).steps, None)
    return cast("Network", network).signature


def checkpoint_fields(
    *,
    mean: str | None = None,
    std: str | None = None,
    input: str | None = None,
    arguments: str | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Fields of ``networks.checkpoint`` as the command line gives them: numbers with commas between, arguments as YAML.

    Raises `SpecError` for what is no list of numbers, or no mapping.

    >>> checkpoint_fields(mean="0.5", input="1,49,10", arguments="{classes: 10}")
    {'mean': [0.5], 'input': [1, 49, 10], 'arguments': {'classes': 10}}
    """
    fields: dict[str, Any] = {}
    for name, text, number in (("mean", mean, float), ("std", std, float), ("input", input, int)):
        if text is None:
            continue
        try:
            fields[name] = [number(part) for part in text.split(",")]
        except ValueError:
            raise SpecError(f"'{text}' is no list of numbers", where=f"--{name}", hint="as in 1,49,10") from None
    if arguments is not None:
        fields["arguments"] = read_yaml(arguments, where="--arguments")[1]
        if not isinstance(fields["arguments"], dict):
            raise SpecError(f"'{arguments}' is no mapping", where="--arguments", hint="as in '{num_classes: 10}'")
    if output is not None:
        fields["output"] = int(output) if output.isdigit() else output
    return fields


def _recipe_text(text: str) -> str:
    from mapsto.recipe.reader import load_recipe
    from mapsto.recipe.writer import dump
    from mapsto.report import build as reports

    place = Path(text)
    if (place / "report.json").is_file():
        return str(reports.load(place)["recipe"]["yaml"])
    return dump(load_recipe(text))


def held_out(node: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data to learn from and the data to choose by: a fifth of each class, at most 100 and at least five of ten or more samples."""
    import numpy as np

    samples = _opened(node)
    least = int(np.bincount(samples.labels, minlength=len(samples.classes)).min())
    share = max(_PER_CLASS, min(100, least // 5))
    chosen: dict[str, Any] = {"data": "$all", "per_class": share}
    return {"subset": {**chosen, "part": "rest"}}, {"subset": chosen}


def held_out_classes(node: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The classes to learn from and those to choose by: the last fifth, at least five.

    Raises `DataError` for fewer than ten classes.
    """
    names = list(_opened(node).classes)
    if len(names) < 2 * _CLASSES:
        raise DataError(
            f"{len(names)} classes are too few to keep some back",
            where="--data",
            hint=f"a learner is compressed with {2 * _CLASSES} classes or more",
        )
    at = len(names) - max(_CLASSES, len(names) // 5)
    return names[:at], names[at:]


def _opened(node: dict[str, Any]) -> Samples:
    from mapsto.data.checks import require_classes

    return require_classes(_samples(node), where="--data")


def _samples(node: dict[str, Any]) -> Samples:
    from mapsto.recipe.reader import parse_recipe

    text = yaml.safe_dump({"schema": 1, "data": {"all": node}, "steps": [{"networks.mlp": {"data": "$all"}}]})
    return parse_recipe(text).data["all"].open()


@dataclass(frozen=True)
class Folds:
    """How examples are dealt out where there are too few to keep some back."""

    count: int
    examples: int


def folds_for(node: dict[str, Any]) -> Folds | None:
    """The folds of cross-validation for labelled examples; None where each class has ten or more, enough to keep some back.

    Raises `DataError` for one example of a class, or fewer in a fold than ``quantize.static`` needs.
    """
    import numpy as np

    samples = _opened(node)
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    least = int(counts.min())
    if least >= 2 * _PER_CLASS:
        return None
    if least < _LEAST:
        raise DataError(
            f"class '{samples.classes[int(counts.argmin())]}' has {least} of the examples, so that nothing can be judged",
            where="--data",
            hint=f"give at least {_LEAST} of each class, better {2 * _PER_CLASS}",
        )
    folds = min(_FOLDS, least)
    learn = len(samples) - int(sum(-(-counts // folds)))
    if learn < _CALIBRATION:
        raise DataError(
            f"{len(samples)} examples leave {learn} to learn from in a fold, fewer than the {_CALIBRATION} that quantization needs",
            where="--data",
            hint="give more of each class, better 10",
        )
    return Folds(folds, len(samples))


@dataclass(frozen=True)
class Plan:
    """How networks of one sort are made small, and judged."""

    data: dict[str, Any]
    """Entries that the steps refer to."""
    judge: dict[str, Any]
    test: dict[str, Any] | None
    prune: tuple[str, dict[str, Any]]
    """A mapping's name, and its fields but for the budget."""
    distil: tuple[str, dict[str, Any]]
    seen: dict[str, Any]
    """The field that says which samples calibrate."""
    parity: str
    """The entry that a package is tried on."""
    metric: str = "accuracy"
    """The number of `judge` that decides, and the name of that report."""
    maximize: bool = True
    """Whether more of it is better."""
    judges_original: bool = True
    """Whether the original is judged too: not where it is what others are compared with."""
    folds: Folds | None = None
    """Where candidates are judged by cross-validation: `judge` is then for the original alone."""

    def renamed(self, names: dict[str, str]) -> Plan:
        """The same with entries of other names."""
        plain: Any = _referring(dataclasses.asdict(self), names)
        plain["data"] = {names[name]: node for name, node in plain["data"].items()}
        plain["folds"] = self.folds
        return Plan(**plain)


def _referring(tree: Any, names: dict[str, str]) -> Any:
    """A tree of plain data with ``$name`` replaced."""
    if isinstance(tree, dict):
        return {key: _referring(value, names) for key, value in cast("dict[str, Any]", tree).items()}
    if isinstance(tree, list | tuple):
        return type(cast("list[Any]", tree))(_referring(value, names) for value in cast("list[Any]", tree))
    label = names.get(tree[1:]) if isinstance(tree, str) and tree.startswith("$") else None
    return tree if label is None else f"${label}"


def _free(name: str, node: Any, entries: dict[str, Any]) -> str:
    """A name for an entry, which the network's own recipe has for nothing else."""
    free = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(each for each in free if entries.get(each, node) == node)


def _of_classifiers(data: dict[str, Any], test: dict[str, Any] | None, epochs: int) -> Plan:
    folds = folds_for(data)
    if folds is None:
        learn, check = held_out(data)
        entries, names, validation = {"learn": learn, "check": check}, ("learn", "check"), {"validation": "$check"}
    else:
        dealt: dict[str, Any] = {"data": "$all", "folds": folds.count}
        entries = {f"without_{number}": {"fold": {**dealt, "number": number}} for number in range(folds.count)}
        names, validation = ("all", "all"), {}
    return Plan(
        data={"all": data, **entries, **({"test": test} if test is not None else {})},
        judge={"evaluate.accuracy": {"data": f"${names[1]}"}},
        test={"evaluate.accuracy": {"data": "$test"}} if test is not None else None,
        prune=("prune.best", {"data": f"${names[0]}"}),
        distil=_distillation({"data": f"${names[0]}", **validation}, _samples(data), epochs),
        seen={"data": f"${names[0]}"},
        parity=f"${names[1]}",
        folds=folds,
    )


def _of_maps(
    signature: Signature, original: str, data: dict[str, Any], test: dict[str, Any] | None, epochs: int
) -> Plan:
    """Of a network that answers with a map for each sample: its own answers are what is kept to, as labels of pixels are not read."""
    shape = signature.outputs[0].shape[1:]
    if len(shape) != 3:
        raise SpecError(
            f"the network gives {tuple(shape)} for a sample, neither one answer nor a map of channels, height and width",
            where="mapsto compress",
            hint="compress it by a recipe: prune.magnitude, quantize.static, evaluate.difference, export.onnx",
        )
    held_back = {"data": "$all", "folds": _FOLDS}
    classes = signature.classes is not None and len(signature.classes) > 1

    def likeness(entry: str) -> dict[str, Any]:
        return {"evaluate.difference": {"teacher": f"${original}", "data": entry}}

    return Plan(
        data={
            "all": data,
            "learn": {"fold": held_back},
            "check": {"fold": {**held_back, "part": "judge"}},
            **({"test": test} if test is not None else {}),
        },
        judge=likeness("$check"),
        test=likeness("$test") if test is not None else None,
        prune=("prune.magnitude", {}),
        distil=_distillation({"data": "$learn", "validation": "$check", "alpha": 1.0}, _samples(data), epochs),
        seen={"data": "$learn"},
        parity="$check",
        metric="agreement" if classes else "euclidean",
        maximize=classes,
        judges_original=False,
    )


def _distillation(fields: dict[str, Any], samples: Samples, epochs: int) -> tuple[str, dict[str, Any]]:
    how = {"learning_rate": 0.02, "schedule": "onecycle", "weight_decay": 0.0005}
    return "distill.logits", {**fields, "epochs": epochs, **_batches(samples), **how}


def _batches(samples: Samples) -> dict[str, Any]:
    """Smaller batches for few examples, so that an epoch still has steps; those of `distill.logits` from a thousand on."""
    size = max(_LEAST_BATCH, len(samples) // _STEPS_OF_FEW)
    return {"batch_size": size} if size < _BATCH else {}


def _of_learners(
    fields: dict[str, Any], tasks: dict[str, Any], data: dict[str, Any], test: dict[str, Any] | None, epochs: int
) -> Plan:
    """`fields` are those of the step that gave the learner, `tasks` those of the episodes that it was trained on."""
    learn, check = held_out_classes(data)
    ways = int(tasks["ways"])

    def episodes(source: str, most: int) -> dict[str, Any]:
        return {"episodes": {**tasks, "data": source, "ways": min(ways, most)}}

    judge: dict[str, Any] = {"tasks": "$val_tasks", "episodes": 200}
    return Plan(
        data={
            "all": data,
            "learn": {"subset": {"data": "$all", "classes": learn}},
            "check": {"subset": {"data": "$all", "classes": check}},
            "train_tasks": episodes("$learn", len(learn)),
            "val_tasks": episodes("$check", len(check)),
            **({"test": test, "test_tasks": episodes("$test", len(_opened(test).classes))} if test is not None else {}),
        },
        judge={"evaluate.episodes": judge},
        test={"evaluate.episodes": {**judge, "tasks": "$test_tasks"}} if test is not None else None,
        prune=("prune.meta", {"tasks": "$train_tasks", "prune_embedding": True, "ranking": "per_cost"}),
        distil=(
            "distill.meta",
            {
                "tasks": "$train_tasks",
                **{name: fields[name] for name in ("tasks_per_step", "leave_one_out") if name in fields},
                "steps": _STEPS * epochs,
                "epoch": _STEPS,
                "optimizer": "adamw",
                "learning_rate": 0.002,
                "schedule": "onecycle",
                "weight_decay": 0.0001,
            },
        ),
        seen={"tasks": "$train_tasks"},
        parity="$check",
    )


def _learner_and_tasks(
    entries: dict[str, Any], steps: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The fields of the step that gave a learner and of the episodes it was trained on; None where the last step gives none."""
    fields: dict[str, Any] | None = None
    for step in _with_branches_taken(steps):
        name = next(iter(step))
        if name.startswith("adapt."):
            fields = None
        elif name.startswith("meta.") and name != "meta.optimizer":
            fields = cast("dict[str, Any]", step[name])
    if fields is None:
        return None
    tasks: Any = fields.get("tasks")
    while isinstance(tasks, str):
        tasks = entries.get(tasks.removeprefix("$"))
    if not isinstance(tasks, dict) or "episodes" not in tasks:
        raise SpecError(
            "this learner's tasks are not drawn from labelled classes",
            where="mapsto compress",
            hint="compress it by a recipe: prune.meta, prune.reconstruct, distill.meta, quantize.static",
        )
    any_data = discovery.find("data", "digits")()
    episodes = fields_of(discovery.find("data", "episodes")(**{**tasks["episodes"], "data": any_data}))
    return fields, {name: episodes[name] for name in ("ways", "shots", "queries")}


def plan_for(
    *,
    model: tuple[dict[str, Any], list[dict[str, Any]]],
    data: dict[str, Any],
    test: dict[str, Any] | None,
    epochs: int | None,
    runtime: str,
    signature: Signature | None,
) -> tuple[Plan, str, dict[str, str]]:
    """How a network is made small and judged, its label, and the names of the plan's entries; fields as of `compression_recipe`."""
    known = runtimes.names()
    if runtime not in known:
        raise SpecError(f"there is no runtime '{runtime}'", where="--runtime", hint=nearest(runtime, known))
    entries, steps = model
    label = str(steps[-1].get("as", "original"))
    learner = _learner_and_tasks(entries, steps)
    if learner is not None:
        plan = _of_learners(*learner, data, test, epochs or _EPOCHS)
    elif signature is not None and signature.is_dense:
        plan = _of_maps(signature, label, data, test, epochs or _EPOCHS)
    else:
        plan = _of_classifiers(data, test, epochs or _EPOCHS)
    names = {name: _free(name, node, entries) for name, node in plan.data.items()}
    return plan.renamed(names), label, names


def compression_recipe(
    *,
    model: tuple[dict[str, Any], list[dict[str, Any]]],
    data: dict[str, Any],
    test: dict[str, Any] | None,
    limits: tuple[Limit, ...],
    shares: tuple[float, ...],
    epochs: int | None = None,
    seed: int = 0,
    runtime: str = "onnxruntime",
    signature: Signature | None = None,
) -> str:
    """The recipe as YAML.

    Parameters
    ----------
    model
        As `model_nodes` gives it.
    signature
        As `signature_of` gives it; a network of dense outputs is judged by its agreement with the original, without labels.
    limits
        All of them hold for the package: its model's file is weighed, and timed in the runtime.
    shares
        Shares of the original's multiply-accumulates that are tried, each in (0, 1], besides 1, which leaves it whole.
    epochs
        Of distillation, in the branches that have it; None: 10, and of texts what `distill.embedding` has by default.
    runtime
        What latency is measured in and the package is for, as `mapsto.nn.export.registry.names` has it.

    Raises `SpecError` for a runtime that is not known, `DataError` for fewer than ten samples of a class.
    """
    wanted = together(limits)
    plan, label, names = plan_for(
        model=model, data=data, test=test, epochs=epochs, runtime=runtime, signature=signature
    )
    entries, steps = model
    cost: dict[str, Any] = {"evaluate.exported": {"runtime": runtime}}
    observe: dict[str, Any] = {plan.metric: plan.judge, "cost": cost}
    if plan.test is not None:
        observe["test"] = plan.test
    original = {**steps[-1], "as": label, "observe": observe if plan.judges_original else {"cost": cost}}
    tried = (1.0, *(share for share in shares if share < 1))
    texts = next(iter(data)) == "text"
    if texts:
        branches = {way: text_branch(way, plan, observe, epochs) for way in TEXT_WAYS}
    else:
        branches = {_named("macs", share): _branch(share, label, plan, observe) for share in tried}
    words = [{"prune.vocabulary": {**plan.seen, "min_count": MIN_COUNT}, "as": "words"}] if texts else []
    choose: dict[str, Any] = {
        "by": plan.judge,
        **({} if plan.metric == "accuracy" else {"metric": plan.metric, "maximize": plan.maximize}),
        "within": cost,
        "limits": {METRICS[each.kind]: each.most for each in wanted},
    }
    if plan.folds is not None:
        branches, choose, observe = _cross_validated(branches, choose, observe, plan.folds, names)
    package = {"evaluate.latency": {"baselines": {"original": f"${label}"}, "all_threads": False}}
    how = f", judged by cross-validation over {plan.folds.examples} examples" if plan.folds is not None else ""
    how += " (the original has learnt from these very data)" if knows(model, data) else ""
    tree = {
        "schema": 1,
        "name": "compress",
        "title": f"{BEST[plan.metric]} within {' and '.join(each.text for each in wanted)}{how}",
        "seed": seed,
        "data": {
            **entries,
            **plan.data,
        },
        "steps": [
            *steps[:-1],
            original,
            *words,
            {"fork": branches},
            {"choose.best": choose, "as": "chosen", "observe": observe},
            {
                EXPORTS.get(runtime, f"export.{runtime}"): {"data": plan.parity},
                "as": "package",
                "observe": {"latency": package},
            },
        ],
        "targets": [
            {"what": each.text, "metric": f"chosen.cost.{METRICS[each.kind]}", "goal": f"<= {each.most:.15g}"}
            for each in wanted
        ],
    }
    return recipe_text(tree)


def knows(model: tuple[dict[str, Any], list[dict[str, Any]]], data: dict[str, Any]) -> bool:
    """Whether the steps that give a network use the examples of `data`, or others of the same file or folder: it may have learnt from them.

    False for a checkpoint: what it was trained on is not known. Data that a training was only watched by are not learnt from.

    >>> data = {"images": {"folder": "/photos", "split": "train"}}
    >>> learnt = [{"train.supervised": {"data": "$few"}}]
    >>> knows(({"few": {"images": {"folder": "/photos", "size": 64}}}, learnt), data), knows(({"few": {"digits": {}}}, learnt), data)
    (True, False)
    >>> few = {"subset": {"data": {"digits": {"size": 16}}, "per_class": 5}}
    >>> knows(({"few": {"digits": {"size": 16}}}, learnt), few), knows(({"few": {**few}, "rest": {"digits": {"size": 16}}}, learnt), few)
    (True, True)
    >>> knows(({"few": {"subset": {**few["subset"], "part": "rest"}}}, learnt), few)
    False
    >>> knows(({"few": {"digits": {}}, "held": few}, [{"train.supervised": {"data": "$few", "validation": "$held"}}]), few)
    False
    """
    from mapsto.kinds import Tasks

    entries, steps = model
    if any("networks.checkpoint" in step for step in steps):
        return False  # its recipe, if there is one, is not known
    wholes, place = _wholes(data), _place(data)

    def found(tree: Any) -> bool:
        if isinstance(tree, str) and tree[1:] in entries and tree.startswith("$"):
            return found(entries[tree[1:]])
        if isinstance(tree, list):
            return any(found(part) for part in cast("list[Any]", tree))
        if not isinstance(tree, dict):
            return False
        own = _resolved(cast("dict[str, Any]", tree), entries)
        name = next(iter(own), "")
        if len(own) == 1 and name in discovery.entries("data"):
            if issubclass(discovery.find("data", name), Tasks):
                return found(own[name])
            return (place is not None and place == _place(own)) or _written(own) in wholes
        return any(found(part) for field, part in cast("dict[str, Any]", tree).items() if field not in _WATCHED)

    return found(steps)


def _resolved(node: Any, entries: dict[str, Any]) -> Any:
    """A node with what its references stand for in their place."""
    if isinstance(node, dict):
        return {key: _resolved(part, entries) for key, part in cast("dict[str, Any]", node).items()}
    if isinstance(node, str) and node.startswith("$") and node[1:] in entries:
        return _resolved(entries[node[1:]], entries)
    return node


def _inner(node: dict[str, Any]) -> dict[str, Any] | None:
    """The data set that a data set is made of, as a subset is; None for one that is made of no other."""
    ((_, fields),) = node.items()
    inner = fields.get("data") if isinstance(fields, dict) else None
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else None


def _wholes(data: dict[str, Any]) -> list[dict[str, Any]]:
    """A data set and those that it is a part of, each as a recipe writes it."""
    wholes: list[dict[str, Any]] = []
    node: dict[str, Any] | None = data
    while node is not None:
        wholes.append(_written(node))
        node = _inner(node)
    return wholes


def _written(node: dict[str, Any]) -> dict[str, Any]:
    """A data set without the fields that are at their default."""
    from mapsto.recipe.nodes import data_from_node
    from mapsto.recipe.writer import node_of

    return node_of(data_from_node(node))


def _place(data: dict[str, Any]) -> str | None:
    """The file or folder that a data set is read from, through whatever it is a part of."""
    ((_, fields),) = data.items()
    inner = _inner(data)
    if inner is not None:
        return _place(inner)
    place = (fields or {}).get("folder", (fields or {}).get("file"))
    return None if place is None else str(Path(str(place)).resolve())


def said_of_original(report: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """What a finished run tells of the network that was to be made smaller: within the limits already, or right by chance.

    `report` is that of `compression_recipe`'s run, `data` its labelled examples.
    """
    steps = cast("list[dict[str, Any]]", report["steps"])
    cost = next((step for step in steps if str(step["path"]).endswith(".cost")), None)
    if cost is None:
        return []
    label = str(cost["path"]).removesuffix(".cost")
    metrics = {str(step["path"]): step["report"]["metrics"] for step in steps if step.get("report")}
    said: list[str] = []
    limits = {str(each["metric"]).removeprefix("chosen.cost."): str(each["goal"]) for each in report["targets"]}
    costs = {name: metrics[f"{label}.cost"][name] for name in limits if name in metrics[f"{label}.cost"]}
    if costs and all(metric["value"] <= float(limits[name].removeprefix("<=")) for name, metric in costs.items()):
        figures = ", ".join(f"{name} {metric['value']:.4g} {metric['unit']}".rstrip() for name, metric in costs.items())
        said.append(
            f"the network is within the limits as it is ({figures}): look at its row before you take a smaller one"
        )
    accuracy = metrics.get(f"{label}.accuracy", {}).get("accuracy")
    if accuracy is None or accuracy["low"] is None:
        return said
    chance = 100 / max(len(_opened(data).classes), 1)
    if accuracy["low"] <= chance:
        said.append(
            f"the network is right on {accuracy['value']:.4g} % ({accuracy['low']:.3g} to {accuracy['high']:.3g}), which may be chance "
            f"({chance:.3g} %): nothing that is made of it can be better; check that it was trained on these classes"
        )
    return said


def together(limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """One limit a cost. Raises `SpecError` for none, or two on one cost."""
    kinds = [limit.kind for limit in limits]
    if len(set(kinds)) < len(kinds) or not kinds:
        raise SpecError(
            "two limits are on the same cost" if kinds else "no limit is given",
            where="--limit",
            hint="give each of latency, bytes, macs and parameters once at most",
        )
    return limits


def _without(step: dict[str, Any], without: tuple[str, ...]) -> dict[str, Any]:
    """A step without these of its entries."""
    return {key: part for key, part in step.items() if key not in without}


def _named(what: str, share: float) -> str:
    return f"{what}_{share:.12g}".replace(".", "_")


def _ends(branches: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The labels of all networks that branches come to, those of inner forks in place of these."""
    labels: list[str] = []
    for label, steps in branches.items():
        labels += _ends(steps[-1]["fork"]) if "fork" in steps[-1] else [label]
    return labels


def _changed(
    branches: dict[str, list[dict[str, Any]]], step: Callable[[dict[str, Any]], dict[str, Any]], suffix: str = ""
) -> dict[str, list[dict[str, Any]]]:
    """Branches of other labels, with each of their steps changed, in inner forks too."""
    return {
        f"{label}{suffix}": [
            {"fork": _changed(each["fork"], step, suffix)} if "fork" in each else step(each) for each in steps
        ]
        for label, steps in branches.items()
    }


def _cross_validated(
    branches: dict[str, list[dict[str, Any]]],
    choose: dict[str, Any],
    observe: dict[str, Any],
    folds: Folds,
    names: dict[str, str],
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any], dict[str, Any]]:
    """Branches for each fold of each candidate, the choice by what these get right together, and the report of what is chosen.

    A fold's branch is the candidate's own with the fold's examples in place of all.
    """
    others: dict[str, list[dict[str, Any]]] = {}
    for number in range(folds.count):
        fold = _changed(branches, lambda step: _without(step, ("as", "observe")), f"_without_{number}")
        others |= _referring(fold, {names["all"]: names[f"without_{number}"]})
    cost = {name: report for name, report in observe.items() if name != "accuracy"}
    made = _changed(branches, lambda step: {**step, "observe": cost} if "observe" in step else step)
    candidates = _ends(branches)
    judge: dict[str, Any] = {
        "evaluate.cross_validated": {
            "data": f"${names['all']}",
            "folds": folds.count,
            "candidates": {branch: f"${branch}" for branch in candidates},
            "without": [f"${branch}_without_{number}" for branch in candidates for number in range(folds.count)],
        }
    }
    return {**made, **others}, {**choose, "by": judge, "among": candidates}, {"accuracy": judge, **cost}


def text_branch(way: TextWay, plan: Plan, observe: dict[str, Any], epochs: int | None) -> list[dict[str, Any]]:
    """The steps of a way to make an encoder of texts small, after those that give it the words of its texts."""
    steps = text_steps(way, data=str(plan.seen["data"]))
    for step in steps if epochs is not None else ():
        if "distill.embedding" in step:
            step["distill.embedding"]["epochs"] = epochs
    if way == "static":
        steps.append({"adapt.best": dict(plan.seen)})
    return [*steps[:-1], {**steps[-1], "observe": observe}]


def _branch(share: float, original: str, plan: Plan, observe: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a share: to the network quantized as it is, or to a fork of it refitted, with and without distillation."""
    quantized = {"quantize.static": plan.seen, "observe": observe}
    if share == 1:
        return [quantized]
    teacher, name = {"teacher": f"${original}"}, _named("macs", share)
    budget = {"macs": share, "max_prune": round(1 - share / 2, 4), "multiple_of": 4}
    (prune, which), (distil, how) = plan.prune, plan.distil
    return [
        {prune: {**which, **budget}, "as": f"{name}_pruned"},
        {"prune.reconstruct": {**teacher, **plan.seen}, "as": f"{name}_refitted_float"},
        {
            "fork": {
                f"{name}_refitted": [quantized],
                f"{name}_distilled": [{distil: {**teacher, **how}, "as": f"{name}_distilled_float"}, quantized],
            }
        },
    ]

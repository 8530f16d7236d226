"""The recipes that are advised on: for each kind of data a few typed holes, and how they are filled.

A hole is a choice among named options, each a step or a few of mapsto's own mappings: which network embeds the data, how it is adapted to
the labels, whether the examples are changed at random, and what makes the result small. Every combination is one recipe, and recipes that
share their first steps share what these compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from mapsto.errors import SpecError, nearest
from mapsto.search.recipe_text import recipe_text

__all__ = [
    "ADVISED",
    "KINDS",
    "SPACES",
    "VERSION",
    "Holes",
    "Kind",
    "checked",
    "holes_of",
    "key_of",
    "network_steps",
    "recipe",
    "recipes",
]

Kind = Literal["images", "texts", "table", "stream"]
Holes = Mapping[str, str]
"""Hole → option."""
KINDS: tuple[Kind, ...] = get_args(Kind)
ADVISED = "advised"
"""What every advised recipe is called."""
VERSION = 1
"""Of the spaces: raised whenever an option comes to other steps, since outcomes of before then say nothing of it."""

SPACES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "images": {
            "network": ("lite0", "cifar_resnet20", "glyph_conv4"),
            "adaptation": ("centroid", "ridge", "finetune"),
            "augment": ("no", "yes"),
            "smaller": ("whole", "int8", "pruned"),
        },
        "texts": {
            "adaptation": ("logistic", "ridge", "centroid", "nearest"),
            "label_names": ("leave_out", "use"),
            "smaller": ("whole", "int8", "words", "layers", "static"),
        },
        "table": {
            "embedding": ("columns", "random", "trained"),
            "head": ("logistic", "ridge", "centroid", "nearest"),
            "augment": ("no", "noise"),
            "smaller": ("whole", "int8"),
        },
        "stream": {
            "learner": ("softmax", "prototypes", "ridge", "mlp", "tree", "tabular"),
            "size": ("small", "large"),
            "drift": ("nothing", "reset", "challenge"),
        },
    }
)
"""Kind → hole → options, of which the first is the plainest."""


def holes_of(kind: Kind) -> Mapping[str, tuple[str, ...]]:
    """The holes of a kind of data. Raises `SpecError` for a kind that there is not."""
    if kind not in SPACES:
        raise SpecError(f"there is no advice on '{kind}'", hint=nearest(kind, KINDS) or f"one of {', '.join(KINDS)}")
    return SPACES[kind]


def recipes(kind: Kind) -> list[dict[str, str]]:
    """Every combination of options, in a fixed order.

    >>> len(recipes("images")), recipes("stream")[0]
    (54, {'learner': 'softmax', 'size': 'small', 'drift': 'nothing'})
    """
    holes = holes_of(kind)
    return [dict(zip(holes, options, strict=True)) for options in itertools.product(*holes.values())]


def key_of(holes: Holes) -> str:
    """The options as one line, by which a recipe is known."""
    return " ".join(holes.values())


def checked(kind: Kind, holes: Holes) -> dict[str, str]:
    """The same holes in their order. Raises `SpecError` for a hole or an option that there is not."""
    known = holes_of(kind)
    for name in [*known, *holes]:
        if name not in known or name not in holes:
            raise SpecError(
                f"recipes of {kind} have the holes {', '.join(known)}, and {', '.join(holes) or 'none'} are given"
            )
        if holes[name] not in known[name]:
            raise SpecError(f"'{holes[name]}' is no option of '{name}'", hint=nearest(holes[name], known[name]))
    return {name: holes[name] for name in known}


def recipe(
    kind: Kind, holes: Holes, data: Mapping[str, Any], *, title: str = "", seed: int = 0, export: bool = False
) -> str:
    """A whole recipe as YAML.

    Parameters
    ----------
    data
        Of a stream ``events``; else ``examples``, which are learnt from, and any of ``validation`` and ``test``, which are only reported.
    export
        Whether the result becomes a package.
    """
    holes = checked(kind, holes)
    steps = _STEPS[kind](holes)
    if kind != "stream":
        observe = {part: {"evaluate.accuracy": {"data": f"${part}"}} for part in ("validation", "test") if part in data}
        steps[-1]["observe"] = {**observe, "size": {"evaluate.size": {}}}
        steps[-1]["as"] = "model"
        if export:
            steps.append({"export.onnx": {"data": "$examples"}, "as": "package"})
    else:
        steps[-1]["observe"] = {"size": {"evaluate.size": {}}}
    tree = {"schema": 1, "name": ADVISED, "title": title or f"{kind}: {key_of(holes)}", "seed": seed}
    return recipe_text({**tree, "data": dict(data), "steps": steps})


# ------------------------------------------------------------------------------------------------------------------------ images

_GLYPHS: dict[str, Any] = {"glyphs": {"split": "train", "per_class": 20}}
_NETWORKS: dict[str, list[dict[str, Any]]] = {
    "lite0": [{"networks.efficientnet_lite0": {"size": 64}}],
    "cifar_resnet20": [
        {
            "networks.checkpoint": {
                "factory": "mapsto.nn.networks.resnet_cifar:resnet_cifar",
                "arguments": {"depth": 20},
                "file": "weights/cifar10_resnet20-12fca82f.th",
                "channels": 3,
                "size": 32,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "classes": [f"CIFAR-10 class {number}" for number in range(10)],
            }
        }
    ],
    "glyph_conv4": [
        {"networks.conv4": {"data": _GLYPHS}},
        {
            "meta.protonet": {
                "tasks": {"episodes": {"data": _GLYPHS, "ways": 64, "shots": 1, "queries": 3}},
                "tasks_per_step": 1,
                "leave_one_out": True,
                "steps": 300,
                "epoch": 100,
                "optimizer": "adamw",
                "learning_rate": 0.002,
                "schedule": "onecycle",
                "weight_decay": 0.01,
            }
        },
    ],
}
_TEXT_NETWORKS: dict[str, list[dict[str, Any]]] = {"minilm": [{"networks.minilm": {}}]}


def network_steps(name: str) -> list[dict[str, Any]]:
    """The steps that give a network which recipes begin with."""
    return [dict(step) for step in (_NETWORKS | _TEXT_NETWORKS)[name]]


_CHANGES: list[dict[str, Any]] = [{"affine": {"degrees": 10, "scale": 0.1, "shear": 0.1, "translate": 0.08}}]
_EXAMPLES = "$examples"


def _image_steps(holes: Holes) -> list[dict[str, Any]]:
    *before, last = _NETWORKS[holes["network"]]
    steps: list[dict[str, Any]] = [*before, {**last, "as": "network"}]
    if holes["smaller"] == "pruned":
        steps.append({"prune.magnitude": {"parameters": 0.7, "multiple_of": 8}})
        if holes["network"] in _REFITTED:
            steps.append({"prune.reconstruct": {"data": _EXAMPLES, "teacher": "$network", "samples": 128}})
    changes: dict[str, Any] = {"augment": _CHANGES} if holes["augment"] == "yes" else {}
    int8 = [] if holes["smaller"] == "whole" else [{"quantize.static": {"data": _EXAMPLES, "samples": 128}}]
    if holes["adaptation"] == "finetune":
        int8 = [
            {name: {**fields, "skip": [_HEADS[holes["network"]]]} for name, fields in step.items()} for step in int8
        ]
        tuning = {"data": _EXAMPLES, "epochs": 4, "batch_size": 16, "folds": None, "learning_rate": 3e-4, **changes}
        return [*steps, {"adapt.finetune": tuning}, *int8]
    # The embedding is made small first: its steps are then shared by all heads.
    return [*steps, *int8, {f"adapt.{holes['adaptation']}": {"data": _EXAMPLES, **changes}}]


_HEADS = {"lite0": "classifier", "cifar_resnet20": "linear", "glyph_conv4": "classifier"}
"""Network → the path of its head, which stays in float."""
_REFITTED = ("cifar_resnet20", "glyph_conv4")
"""Networks whose pruned layers are fitted anew, by least squares; those of EfficientNet-Lite0 pad as TensorFlow does, and are not."""


# ------------------------------------------------------------------------------------------------------------------------- texts


def _text_steps(holes: Holes) -> list[dict[str, Any]]:
    way = {"ridge": "plain_ridge"}.get(holes["adaptation"], holes["adaptation"])
    head = {"adapt.best": {"data": _EXAMPLES, "ways": [way], "label_names": holes["label_names"]}}
    steps: list[dict[str, Any]] = [{"networks.minilm": {}}]
    smaller = holes["smaller"]
    if smaller == "words":
        steps.append({"prune.vocabulary": {"data": _EXAMPLES}})
    if smaller == "layers":
        steps[0]["as"] = "encoder"
        steps.append({"prune.blocks": {"share": 0.5, "data": _EXAMPLES}})
        steps.append({"distill.embedding": {"data": _EXAMPLES, "teacher": "$encoder"}})
    if smaller == "static":
        steps.append({"distill.static": {"data": _EXAMPLES}})
    if smaller != "whole":
        steps.append({"quantize.dynamic": {}})
    return [*steps, head]


# ------------------------------------------------------------------------------------------------------------------------ tables

_ROW_CHANGES: list[dict[str, Any]] = [{"noise": {"std": 0.3}}]


def _table_steps(holes: Holes) -> list[dict[str, Any]]:
    changes: dict[str, Any] = {"augment": _ROW_CHANGES} if holes["augment"] == "noise" else {}
    widths = {"columns": [], "random": [256], "trained": [64]}[holes["embedding"]]
    steps: list[dict[str, Any]] = [{"networks.mlp": {"data": _EXAMPLES, "widths": widths}}]
    if holes["embedding"] == "trained":
        training = {"data": _EXAMPLES, "epochs": 60, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.003}
        steps.append({"train.supervised": {**training, **changes}})
    head = {"logistic": "linear"}.get(holes["head"], holes["head"])
    steps.append({f"adapt.{head}": {"data": _EXAMPLES, **(changes if head != "nearest" else {})}})
    return [*steps, {"quantize.dynamic": {}}] if holes["smaller"] == "int8" else steps


# ----------------------------------------------------------------------------------------------------------------------- streams

_LEARNERS: dict[tuple[str, str], dict[str, Any]] = {
    ("softmax", "small"): {"softmax": {"rate": 0.05}},
    ("softmax", "large"): {"softmax": {}},
    ("prototypes", "small"): {"prototypes": {"covariance": "none"}},
    ("prototypes", "large"): {"prototypes": {}},
    ("ridge", "small"): {"ridge": {"projection": 0}},
    ("ridge", "large"): {"ridge": {"projection": 200}},
    ("mlp", "small"): {"mlp": {"hidden": 16, "replay": 3, "memory": 500}},
    ("mlp", "large"): {"mlp": {}},
    ("tree", "small"): {"hoeffding_tree": {"grace": 50, "depth": 5}},
    ("tree", "large"): {"hoeffding_tree": {}},
    ("tabular", "small"): {"tabular": {"preset": "fast"}},
    ("tabular", "large"): {"tabular": {}},
}


def _stream_steps(holes: Holes) -> list[dict[str, Any]]:
    ((name, fields),) = _LEARNERS[holes["learner"], holes["size"]].items()
    common = {"stream": "$events", "every": 250}
    if holes["drift"] == "nothing":
        return [{f"online.{name}": {**common, **fields}, "as": "model"}]
    reacting = {**common, "learner": {name: fields} if fields else name, "reactions": ["warn", holes["drift"]]}
    return [{"online.react": reacting, "as": "model"}]


_STEPS: Mapping[str, Callable[[Holes], list[dict[str, Any]]]] = {
    "images": _image_steps,
    "texts": _text_steps,
    "table": _table_steps,
    "stream": _stream_steps,
}

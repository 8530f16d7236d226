"""A learner of river as bytes and back, without pickle: an allow-listed graph of objects as JSON, bound to river's version.

Plain values stand in their place, containers and objects in a list by number, so that what is shared stays shared. Only the classes named
here are written and read; reading imports nothing else and runs nothing that the bytes say: objects are made empty, and given attributes.
"""

from __future__ import annotations

import collections
import functools
import importlib
import json
import random
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, cast

from mapsto.errors import MissingExtra

__all__ = ["decoded", "encoded", "river"]

_FORMAT = 1
_CLASSES = {
    name.rpartition(".")[2]: f"river.{name}"
    for name in (
        "drift.adwin.ADWIN",
        "forest.adaptive_random_forest.ARFClassifier",
        "forest.adaptive_random_forest.BaseTreeClassifier",
        "forest.aggregated_mondrian_forest.AMFClassifier",
        "metrics.accuracy.Accuracy",
        "metrics.confusion.ConfusionMatrix",
        "proba.gaussian.Gaussian",
        "stats.mean.Mean",
        "stats.var.Var",
        "tree.hoeffding_tree_classifier.HoeffdingTreeClassifier",
        "tree.mondrian.mondrian_tree_classifier.MondrianTreeClassifier",
        "tree.mondrian.mondrian_tree_nodes.MondrianBranchClassifier",
        "tree.mondrian.mondrian_tree_nodes.MondrianLeafClassifier",
        "tree.nodes.arf_htc_nodes.RandomLeafNaiveBayesAdaptive",
        "tree.nodes.branch.NumericBinaryBranch",
        "tree.nodes.htc_nodes.LeafNaiveBayesAdaptive",
        "tree.splitter.gaussian_splitter.GaussianSplitter",
    )
}
"""Classes in Python, whose state is their attributes."""
_NATIVE = {"AdaptiveWindowing": "river._river_rust.drift.AdaptiveWindowing"}
"""Classes in native code, which say what they are made with, and give their state as bytes."""
_UNUSED = {"Gaussian": "_rng"}
"""Attributes that are not stored: generators seeded by the system, which only `sample` draws from, and no classifier calls it."""
_FACTORIES: dict[str, Callable[[], Any]] = {
    "int": int,
    "float": float,
    "floats": functools.partial(collections.defaultdict, float),
}
"""Of dictionaries with a default."""


def river() -> ModuleType:
    """The package. Raises `MissingExtra` where it is not installed."""
    try:
        for part in ("tree", "forest"):
            importlib.import_module(f"river.{part}")
        return importlib.import_module("river")
    except ModuleNotFoundError as error:
        raise MissingExtra("river", "online", where="online") from error


def encoded(root: Any) -> bytes:
    """The graph of objects that hangs on a learner. Raises `ValueError` that names a class which is not on the list."""
    return _Encoder().encoded(root)


def decoded(data: bytes) -> Any:
    """The learner that was encoded.

    Raises `ValueError`, `LookupError` or `TypeError` where the bytes are no such graph, or another river's.
    """
    tree = json.loads(data)
    known = [_FORMAT, cast("Any", river()).__version__]
    if tree["made"] != known:
        raise ValueError(f"it is of format and river {tree['made']}, and here they are {known}")
    return _Decoder(tree["nodes"]).decoded(tree["root"])


class _Encoder:
    """Numbers containers and objects in the order in which they are met, breadth first: deep trees need no deep stack."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._waiting: collections.deque[Any] = collections.deque()
        self._kept: list[Any] = []
        """All that is numbered: an object that lives keeps its id."""

    def encoded(self, root: Any) -> bytes:
        first = self._value(root)
        nodes: list[Any] = []
        while self._waiting:
            nodes.append(self._node(self._waiting.popleft()))
        made = [_FORMAT, cast("Any", river()).__version__]
        tree = {"made": made, "root": first, "nodes": nodes}
        return json.dumps(tree, separators=(",", ":")).encode()

    def _value(self, value: Any) -> Any:
        """A plain value as it is, a tuple in its place, anything else as the number of its node in a list of one."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) is tuple:
            return {"tuple": self._values(value)}
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._kept)
            self._kept.append(value)
            self._waiting.append(value)
        return [self._numbers[id(value)]]

    def _values(self, values: Iterable[Any]) -> list[Any]:
        return [self._value(value) for value in values]

    def _node(self, value: Any) -> list[Any]:
        kind = type(value)
        if kind in (list, set):
            return [kind.__name__, self._values(value)]
        if kind is dict:
            return ["dict", self._values(value.keys()), self._values(value.values())]
        if kind is collections.defaultdict:
            factory = _name_of_factory(value.default_factory)
            return ["defaultdict", self._values(value.keys()), self._values(value.values()), factory]
        if kind is random.Random:
            version, words, gauss = value.getstate()
            return ["Random", version, list(words), gauss]
        name = kind.__name__
        if name in _NATIVE and f"{kind.__module__}.{name}" == _NATIVE[name]:
            return [name, self._values(value.__getnewargs__()), value.__getstate__().hex()]
        if f"{kind.__module__}.{name}" != _CLASSES.get(name):
            raise ValueError(f"a {kind.__module__}.{kind.__qualname__} is not on the list of what is stored")
        state = _attributes(value)
        state.pop(_UNUSED.get(name, ""), None)
        return [name, list(state), self._values(state.values())]


def _name_of_factory(factory: Any) -> str:
    for name, known in _FACTORIES.items():
        if factory is known or (
            isinstance(factory, functools.partial)
            and isinstance(known, functools.partial)
            and (factory.func, factory.args) == (known.func, known.args)
        ):
            return name
    raise ValueError(f"a dictionary whose default is {factory!r} is not on the list of what is stored")


def _attributes(value: Any) -> dict[str, Any]:
    """An object's attributes, those in slots among them."""
    slots = [name for kind in type(value).__mro__ for name in _slots(kind)]
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots if hasattr(value, name)}}


def _slots(kind: type) -> Iterable[str]:
    names: Any = kind.__dict__.get("__slots__", ())
    found = (names,) if isinstance(names, str) else names
    return [name for name in found if name not in ("__dict__", "__weakref__")]


class _Decoder:
    """Makes every node empty, and then fills them."""

    def __init__(self, nodes: list[Any]) -> None:
        self._nodes = nodes
        self._made: list[Any] = []

    def decoded(self, root: Any) -> Any:
        self._made = [self._empty(node) for node in self._nodes]
        for made, node in zip(self._made, self._nodes, strict=True):
            self._fill(made, node)
        return self._value(root)

    def _empty(self, node: list[Any]) -> Any:
        kind = node[0]
        if kind == "defaultdict":
            return collections.defaultdict(_FACTORIES[node[3]])
        if kind in _PLAIN:
            return _PLAIN[kind]()
        if kind in _NATIVE:
            return _class(_NATIVE[kind])(*(self._value(value) for value in node[1]))
        cls = _class(_CLASSES[kind])
        return cls.__new__(cls)

    def _fill(self, made: Any, node: list[Any]) -> None:
        kind = node[0]
        if kind == "list":
            made.extend(self._value(value) for value in node[1])
        elif kind == "set":
            made.update(self._value(value) for value in node[1])
        elif kind in ("dict", "defaultdict"):
            made.update(zip(map(self._value, node[1]), map(self._value, node[2]), strict=True))
        elif kind == "Random":
            made.setstate((node[1], tuple(node[2]), node[3]))
        elif kind in _NATIVE:
            made.__setstate__(bytes.fromhex(node[2]))
        else:
            for name, value in zip(node[1], node[2], strict=True):
                object.__setattr__(made, name, self._value(value))
            if kind in _UNUSED:
                object.__setattr__(made, _UNUSED[kind], random.Random(0))

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            (number,) = cast("list[int]", value)
            return self._made[number]
        if isinstance(value, dict):
            return tuple(self._value(part) for part in cast("dict[str, list[Any]]", value)["tuple"])
        return value


_PLAIN: dict[str, Callable[[], Any]] = {"list": list, "set": set, "dict": dict, "Random": random.Random}


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)

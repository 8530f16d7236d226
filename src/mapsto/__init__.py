"""Everything is a mapping: from a large pretrained model and a handful of labels to a small model that learns on the job.

    from mapsto import adapt, datasets, distill, export, networks, prune, train, execute

    big = networks.vgg(depth=16, data=images) >> train.supervised(data=images)
    execute(big >> prune.taylor(macs=0.25, data=images) >> distill.logits(teacher=big, data=images) >> export.onnx())

Families of mappings (`networks`, `train`, `prune`, …), `datasets`, `streams` and `augment` are namespaces filled by walking the package's
folders;
nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from mapsto_runtime import __version__ as __version__

_HOMES = {
    "Chain": "mapsto.mapping",
    "Context": "mapsto.context",
    "Dataset": "mapsto.kinds",
    "Edit": "mapsto.kinds",
    "MapstoError": "mapsto.errors",
    "Mapping": "mapsto.mapping",
    "Model": "mapsto.kinds",
    "Network": "mapsto.kinds",
    "Numerics": "mapsto.context",
    "Package": "mapsto.kinds",
    "Process": "mapsto.process",
    "Report": "mapsto.kinds",
    "Store": "mapsto.store",
    "Stream": "mapsto.kinds",
    "Tasks": "mapsto.kinds",
    "execute": "mapsto.run.executor",
    "fork": "mapsto.mapping",
    "load_recipe": "mapsto.recipe.reader",
    "observe": "mapsto.mapping",
    "ref": "mapsto.mapping",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll] - the stub lists them


class _Namespace:
    """One family of names: an attribute is the class of that name, imported when first asked for."""

    def __init__(self, group: str, prefix: str) -> None:
        self._group = group
        self._prefix = prefix

    def __getattr__(self, name: str) -> Any:
        from mapsto import discovery
        from mapsto.errors import SpecError

        if name.startswith("__"):
            raise AttributeError(name)
        try:
            found = discovery.find(self._group, self._prefix + name)
        except SpecError as error:
            raise AttributeError(str(error)) from error
        setattr(self, name, found)
        return found

    def __dir__(self) -> list[str]:
        from mapsto import discovery

        names = discovery.entries(self._group)
        return [name.removeprefix(self._prefix) for name in names if name.startswith(self._prefix)]


def _namespace(name: str) -> _Namespace | None:
    discovery = importlib.import_module("mapsto.discovery")
    if name == "datasets":
        return _Namespace("data", "")
    if name == "streams":
        return _Namespace("streams", "")
    if name == "augment":
        return _Namespace("augment", "augment.")
    if any(entry.startswith(f"{name}.") for entry in discovery.entries("mappings")):
        return _Namespace("mappings", f"{name}.")
    return None


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value: Any = getattr(importlib.import_module(_HOMES[name]), name)
    elif name.startswith("_") or (value := _namespace(name)) is None:
        raise AttributeError(f"module 'mapsto' has no attribute '{name}'")
    globals()[name] = value
    return value

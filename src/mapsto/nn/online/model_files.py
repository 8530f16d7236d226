"""A model as files, without pickle: what a package for hosts with mapsto carries under ``model/``.

``model.json`` holds all but the arrays, which are in ``arrays.npz``; an encoder on which the model stands is under ``base/``, a network
as a package carries a learner, a package as its own files.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.errors import StoreError
from mapsto.kinds import EventSignature, Model, Network, Package
from mapsto.nn.export.package import text_of
from mapsto_runtime.regular_files import read_file

__all__ = ["FOLDER", "loaded", "saved"]

FOLDER = "model/"
"""Of a package."""
_FORMAT = 1
_MODEL, _ARRAYS, _BASE = f"{FOLDER}model.json", f"{FOLDER}arrays.npz", f"{FOLDER}base/"


def saved(value: Model) -> dict[str, bytes]:
    """The files of a model: name in the package → content."""
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False, **dict(value.arrays))
    tree: dict[str, Any] = {
        "format": _FORMAT,
        "learner": value.learner,
        "version": value.version,
        "fields": dict(value.fields),
        "signature": dataclasses.asdict(value.signature),
        "values": dict(value.values),
        "events": value.events,
        "position": value.position,
        "base": None,
    }
    files: dict[str, bytes] = {}
    if isinstance(value.base, Package):
        tree["base"] = "package"
        files = {name: path.read_bytes() for name, path in value.base.files.items()}
    elif value.base is not None:
        from mapsto.nn.network import serialization

        tree["base"] = "network"
        files = serialization.saved(value.base)
    based = {f"{_BASE}{name}": content for name, content in sorted(files.items())}
    return {_MODEL: text_of(tree), _ARRAYS: arrays.getvalue(), **based}


def loaded(files: Mapping[str, Path]) -> Model:
    """The model of a package's verified files.

    Raises `StoreError` where they are not what `saved` gave, or of a later mapsto.
    """
    where = str(files[_MODEL])
    try:
        tree: dict[str, Any] = json.loads(read_file(files[_MODEL]).decode())
        if tree["format"] != _FORMAT:
            raise StoreError(
                f"the model has format {tree['format']!r}; this mapsto reads {_FORMAT}",
                where=where,
                hint="upgrade mapsto",
            )
        with np.load(io.BytesIO(read_file(files[_ARRAYS])), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        return Model(
            learner=str(tree["learner"]),
            version=int(tree["version"]),
            fields=dict(tree["fields"]),
            signature=EventSignature.from_plain(tree["signature"]),
            arrays=arrays,
            values=dict(tree["values"]),
            events=int(tree["events"]),
            position=tree["position"],
            base=_base(tree["base"], files),
        )
    except (LookupError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise StoreError(
            f"not a model as mapsto packages it ({type(error).__name__}: {error})"[:300],
            where=where,
            hint="export the package again",
        ) from error


def _base(kind: str | None, files: Mapping[str, Path]) -> Network | Package | None:
    if kind is None:
        return None
    if kind == "package":
        return Package(files={name.removeprefix(_BASE): path for name, path in files.items() if name.startswith(_BASE)})
    from mapsto.nn.network import serialization

    return serialization.load(files[f"{_BASE}network.json"].parent)

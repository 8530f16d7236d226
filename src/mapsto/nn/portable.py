"""A network as plain data: a JSON tree and named blobs, and as two files that another process rebuilds it from, without pickle.

The tree is what the store keeps as a manifest; ``network.json`` and ``tensors.safetensors`` are how a package carries a learner.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto import discovery
from mapsto.errors import StoreError
from mapsto.kinds import Adaptation, Edit, Factory, Network, Signature

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode", "decode_edit", "encode", "encode_edit", "load", "saved"]

FORMAT = 1
"""The version of the two files' format."""
_NETWORK, _TENSORS = "network.json", "tensors.safetensors"

Put = Callable[[Any], str]
"""Keeps a tensor or bytes, and gives the name to find it by."""


def encode(value: Network, put: Put) -> dict[str, Any]:
    """The network's tree, whose tensors and assets stand as `put` names them."""
    adaptation = value.adaptation
    return {
        "kind": "Network",
        "arch": {"name": value.arch.name, "arguments": value.arch.arguments},
        "edits": [encode_edit(edit) for edit in value.edits],
        "tensors": {name: put(tensor) for name, tensor in sorted(value.tensors.items())},
        "aliases": _aliases(value.tensors),
        "signature": value.signature.plain(),
        "assets": {name: put(data) for name, data in sorted(value.assets.items())},
        "adaptation": None
        if adaptation is None
        else {
            "method": adaptation.method,
            "settings": dict(adaptation.settings),
            "tensors": {name: put(tensor) for name, tensor in sorted(adaptation.tensors.items())},
        },
    }


def decode(
    tree: Mapping[str, Any], tensor: Callable[[str, str], Tensor], asset: Callable[[str, str], bytes]
) -> Network:
    """The network of a tree; `tensor` and `asset` find (what `put` gave, the name within the network)."""
    tensors: dict[str, Tensor] = {}
    for name, blob in tree["tensors"].items():
        first = tree["aliases"].get(name)
        tensors[name] = tensors[first] if first is not None else tensor(blob, name)
    adaptation: dict[str, Any] | None = tree["adaptation"]
    return Network(
        arch=Factory(**tree["arch"]),
        edits=tuple(decode_edit(edit) for edit in tree["edits"]),
        tensors=tensors,
        signature=Signature.from_plain(tree["signature"]),
        assets={name: asset(blob, name) for name, blob in tree["assets"].items()},
        adaptation=None
        if adaptation is None
        else Adaptation(
            method=adaptation["method"],
            settings=adaptation["settings"],
            tensors={name: tensor(blob, name) for name, blob in adaptation["tensors"].items()},
        ),
    )


def _aliases(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Tied weights: name → the first name of the same tensor."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, tensor in sorted(tensors.items()):
        if id(tensor) in first:
            found[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
    return found


def encode_edit(edit: Edit) -> dict[str, Any]:
    """An edit as JSON: its name, version and fields."""
    import pydantic

    fields = pydantic.TypeAdapter(type(edit)).dump_python(edit, mode="json")
    return {"name": discovery.name_of(type(edit)), "version": type(edit).version, "fields": fields}


def decode_edit(tree: Mapping[str, Any]) -> Edit:
    """The edit. Raises `StoreError` for one of a later version."""
    cls = discovery.find("edits", tree["name"])
    if tree["version"] > cls.version:
        raise StoreError(
            f"edit '{tree['name']}' has version {tree['version']}, this mapsto knows {cls.version}",
            hint="upgrade mapsto",
        )
    return cls(**tree["fields"])


def saved(value: Network) -> dict[str, bytes]:
    """The network as files: name → content.

    >>> from mapsto import networks
    >>> sorted(saved(networks.conv4(width=2)()))
    ['network.json', 'tensors.safetensors']
    """
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    files: dict[str, bytes] = {}

    def put(blob: Any) -> str:
        if isinstance(blob, torch.Tensor):
            tensors[f"{len(tensors)}"] = blob.detach().cpu().contiguous()
            return f"{len(tensors) - 1}"
        files[f"assets/{len(files)}"] = blob
        return f"assets/{len(files) - 1}"

    tree = {"format": FORMAT, **encode(value, put)}
    copies = {name: tensor.clone() for name, tensor in tensors.items()}  # safetensors refuses tensors that share memory
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
    return {_NETWORK: f"{text}\n".encode(), _TENSORS: save(copies), **files}


def load(folder: Path) -> Network:
    """The network that `saved` wrote into a folder.

    Raises `StoreError` where a file is missing, damaged or of a later format, `TrustError` when it is built from a factory that
    is not trusted.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    try:
        tree = cast("dict[str, Any]", json.loads((folder / _NETWORK).read_text(encoding="utf-8")))
        if tree["format"] > FORMAT:
            raise StoreError(
                f"the network has format {tree['format']}; this mapsto knows {FORMAT}",
                where=str(folder),
                hint="upgrade mapsto",
            )
        tensors = load_tensors((folder / _TENSORS).read_bytes())
        return decode(tree, lambda blob, _: tensors[blob], lambda blob, _: (folder / blob).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise StoreError(
            f"no whole network is here ({type(error).__name__}: {error})", where=str(folder), hint="export it again"
        ) from error

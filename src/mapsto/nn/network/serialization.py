"""A network as plain data: a JSON tree and named blobs, and as two files that another process rebuilds it from, without pickle.

The tree is what the store keeps as a manifest; ``network.json`` and ``tensors.safetensors`` are how a package carries a learner.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from mapsto import discovery
from mapsto.errors import MapstoError, MissingExtra, StoreError, TrustError
from mapsto.kinds import Adaptation, Edit, Factory, Network, Signature
from mapsto_runtime.regular_files import read_file

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


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="ignore")


class _Arch(_Part):
    name: str
    arguments: dict[str, Any]


class _Edit(_Part):
    name: str
    version: int = pydantic.Field(ge=1)
    fields: dict[str, Any]


class _Adaptation(_Part):
    method: str = pydantic.Field(pattern=r"^[a-z_][a-z0-9_]*$")
    settings: dict[str, Any]
    tensors: dict[str, str]


class _Tree(_Part):
    """What `encode` gives, as far as it can be checked without knowing the network."""

    kind: Literal["Network"]
    arch: _Arch
    edits: list[_Edit]
    tensors: dict[str, str]
    aliases: dict[str, str]
    signature: dict[str, Any]
    assets: dict[str, str]
    adaptation: _Adaptation | None


def decode(
    tree: Mapping[str, Any], tensor: Callable[[str, str], Tensor], asset: Callable[[str, str], bytes]
) -> Network:
    """The network of a tree; `tensor` and `asset` find (what `put` gave, the name within the network).

    Raises `StoreError` that names the entry where the tree is not one that `encode` gave.
    """
    try:
        read = _Tree.model_validate(tree)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)[0]
        place = ".".join(map(str, found["loc"])) or "the whole"
        given = "" if found["type"] == "missing" else f", got {found['input']!r}"[:120]
        raise StoreError(f"no network's description: {place}: {found['msg'].lower()}{given}") from error
    tensors: dict[str, Tensor] = {}
    for name, blob in read.tensors.items():
        first = read.aliases.get(name)
        tensors[name] = tensors[first] if first is not None else tensor(blob, name)
    adaptation = read.adaptation
    return Network(
        arch=Factory(name=read.arch.name, arguments=read.arch.arguments),
        edits=tuple(decode_edit(edit.model_dump()) for edit in read.edits),
        tensors=tensors,
        signature=Signature.from_plain(read.signature),
        assets={name: asset(blob, name) for name, blob in read.assets.items()},
        adaptation=None
        if adaptation is None
        else Adaptation(
            method=adaptation.method,
            settings=adaptation.settings,
            tensors={name: tensor(blob, name) for name, blob in adaptation.tensors.items()},
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


def load(folder: Path, *, hashes: Mapping[str, str] | None = None) -> Network:
    """The network that `saved` wrote into a folder.

    Parameters
    ----------
    folder
        Holds ``network.json`` and the files that it names; nothing outside it is read.
    hashes
        SHA-256 of each file by its name, as a package's manifest has them; a file that is not among them is refused.

    Raises
    ------
    StoreError
        A file is missing, damaged, outside the folder, not the one that was exported, or of a later format.
    TrustError
        It is built from a factory that is not trusted.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    def read(name: str) -> bytes:
        return _inside(folder, name, None if hashes is None else hashes.get(name, ""))

    try:
        tree: Any = json.loads(read(_NETWORK))
        version = tree["format"]
        if type(version) is not int or version > FORMAT:
            raise StoreError(
                f"the network has format {version!r}; this mapsto knows {FORMAT}",
                where=str(folder),
                hint="upgrade mapsto",
            )
        tensors = load_tensors(read(_TENSORS))
        network = decode(tree, lambda blob, _: tensors[blob], lambda blob, _: read(blob))
        network.module()  # someone's file: what does not fit is found here, and is no fault of mapsto
        return network
    except StoreError as error:
        raise StoreError(error.what, where=error.where or str(folder), hint=error.hint or "export it again") from error
    except (TrustError, MissingExtra):
        raise
    except (MapstoError, SafetensorError, *_MISFITS) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise StoreError(f"no whole network is here ({reason})", where=str(folder), hint="export it again") from error


_MISFITS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""What a factory, an edit or a parser raises for values that do not fit; of `RuntimeError` also too deep nesting."""


def _inside(folder: Path, name: str, digest: str | None) -> bytes:
    """A file of the folder, checked. Raises `StoreError` for one that leads out of it or is not what the digest says."""
    path, root = folder / name, folder.resolve()
    if not name or "\0" in name or Path(name).is_absolute() or not path.resolve().is_relative_to(root):
        raise StoreError(f"it names {name!r}, outside its folder", where=str(folder), hint="do not use it")
    if not path.is_file():
        raise StoreError(f"'{name}' is missing", where=str(folder), hint="export it again")
    content = read_file(path)
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        what = "is not the file that was exported" if digest else "is not named by the package's manifest"
        raise StoreError(f"'{name}' {what}", where=str(folder), hint="export the package again, or do not use it")
    return content

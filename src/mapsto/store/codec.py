"""Values as manifests and back: a manifest is JSON, in which tensors and files stand as digests of blobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mapsto.errors import StoreError
from mapsto.kinds import (
    EventSignature,
    Forked,
    Metric,
    Model,
    Network,
    Package,
    Report,
    Series,
    Table,
)
from mapsto.nn.network import serialization
from mapsto.store.digest import array_bytes, array_from_bytes, digest_bytes, digest_json, tensor_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "Put",
    "Source",
    "blob_bytes",
    "blobs_of",
    "build",
    "decode",
    "encode",
    "measured_of",
    "network_digest",
    "parts_of",
]

Put = Callable[[Any], str]


def encode(value: Any, put: Put) -> dict[str, Any]:
    """A value's manifest; `put` stores a tensor or bytes and gives its digest. Measured values are left out."""
    if isinstance(value, Network):
        return serialization.encode(value, put)
    if isinstance(value, Report):
        return {
            "kind": "Report",
            "metrics": {k: _metric(m) for k, m in value.metrics.items() if not m.measured},
            "tables": {k: _without_measured(dataclasses.asdict(t)) for k, t in value.tables.items() if not t.measured},
            "series": {k: _without_measured(dataclasses.asdict(s)) for k, s in value.series.items() if not s.measured},
            "pictures": {k: put(p) for k, p in value.pictures.items()},
        }
    if isinstance(value, Package):
        return {"kind": "Package", "files": {name: put(Path(path)) for name, path in sorted(value.files.items())}}
    if isinstance(value, Forked):
        return {"kind": "Forked", "parts": dict(value.parts)}
    if isinstance(value, Model):
        return _model(value, put)
    raise StoreError(f"a value of type {type(value).__name__} is not one of mapsto's kinds")


def _model(value: Model, put: Put) -> dict[str, Any]:
    base = None if value.base is None else encode(value.base, put)
    return {
        "kind": "Model",
        "learner": value.learner,
        "version": value.version,
        "fields": dict(value.fields),
        "signature": dataclasses.asdict(value.signature),
        "arrays": {name: put(array_bytes(array)) for name, array in value.arrays.items()},
        "values": dict(value.values),
        "events": value.events,
        "position": value.position,
        **({} if base is None else {"base": base}),
    }


def _metric(metric: Metric) -> dict[str, Any]:
    """A metric as JSON; ends that it has not are left out, so that digests are those from before there were any."""
    tree = _without_measured(dataclasses.asdict(metric))
    return {name: part for name, part in tree.items() if part is not None or name not in ("low", "high")}


def _without_measured(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in tree.items() if k != "measured"}


def network_digest(value: Network) -> str:
    """The digest that the network has in any store."""
    return digest_json(encode(value, lambda blob: digest_bytes(blob_bytes(blob))))


def blob_bytes(blob: Any) -> bytes:
    """The bytes that a tensor, bytes or a file is stored as."""
    if isinstance(blob, bytes):
        return blob
    if isinstance(blob, Path):
        return blob.read_bytes()
    return tensor_bytes(blob)


class Source(Protocol):
    """Where a manifest's blobs and parts are read."""

    def tensor(self, digest: str, *, used_by: str = "") -> Tensor: ...

    def blob_path(self, digest: str, *, used_by: str = "") -> Path: ...

    def load(self, digest: str) -> Any: ...


def decode(tree: dict[str, Any], digest: str, source: Source, measured: Mapping[str, Any]) -> Any:
    """The value of a manifest; a report or package gets its measured values."""
    kind = tree["kind"]
    if kind == "Network":
        return _decode_network(tree, digest, source)
    if kind == "Report":
        return _decode_report(tree, digest, source, measured)
    if kind == "Package":
        return Package(
            files={n: source.blob_path(b, used_by=f"package {digest[:12]}, {n}") for n, b in tree["files"].items()},
            measured={k: _table({**v, "measured": True}) for k, v in measured.get("tables", {}).items()},
        )
    if kind == "Forked":
        return Forked(parts={label: source.load(part) for label, part in tree["parts"].items()})
    if kind == "Model":
        return _decode_model(tree, digest, source)
    raise StoreError(f"an artifact of unknown kind '{kind}'", where=digest, hint="upgrade mapsto")


def _decode_model(tree: dict[str, Any], digest: str, source: Source) -> Model:
    of = f"model {digest[:12]}"
    arrays = {
        name: array_from_bytes(source.blob_path(blob, used_by=f"{of}, array {name}").read_bytes())
        for name, blob in tree["arrays"].items()
    }
    return Model(
        learner=tree["learner"],
        version=tree["version"],
        fields=tree["fields"],
        signature=EventSignature.from_plain(tree["signature"]),
        arrays=arrays,
        values=tree["values"],
        events=tree["events"],
        position=tree["position"],
        base=None if "base" not in tree else decode(tree["base"], digest, source, {}),
    )


def _decode_network(tree: dict[str, Any], digest: str, source: Source) -> Network:
    of = f"network {digest[:12]}"
    return serialization.decode(
        tree,
        lambda blob, name: source.tensor(blob, used_by=f"{of}, tensor {name}"),
        lambda blob, name: source.blob_path(blob, used_by=f"{of}, asset {name}").read_bytes(),
    )


def _decode_report(tree: dict[str, Any], digest: str, source: Source, measured: Mapping[str, Any]) -> Report:
    def merged(part: str) -> dict[str, dict[str, Any]]:
        own: dict[str, dict[str, Any]] = {k: {**v, "measured": False} for k, v in tree[part].items()}
        return own | {k: {**v, "measured": True} for k, v in measured.get(part, {}).items()}

    return Report(
        metrics={k: Metric(**v) for k, v in merged("metrics").items()},
        tables={k: _table(v) for k, v in merged("tables").items()},
        series={
            k: build(Series, v, x=tuple(v["x"]), ys={n: tuple(y) for n, y in v["ys"].items()})
            for k, v in merged("series").items()
        },
        pictures={
            k: source.blob_path(b, used_by=f"report {digest[:12]}, picture {k}").read_bytes()
            for k, b in tree["pictures"].items()
        },
    )


T = TypeVar("T")


def build(cls: type[T], tree: Mapping[str, Any], **changes: Any) -> T:
    """A dataclass from JSON, some of its fields given in their own types."""
    values: dict[str, Any] = {**tree, **changes}
    return cls(**values)


def _table(tree: Mapping[str, Any]) -> Table:
    return build(Table, tree, columns=tuple(tree["columns"]), rows=tuple(tuple(row) for row in tree["rows"]))


def blobs_of(manifest: Mapping[str, Any]) -> list[str]:
    """The digests of the blobs that a manifest refers to."""
    found: list[str] = []
    for part in ("tensors", "assets", "pictures", "files", "arrays"):
        found += manifest.get(part, {}).values()
    if "base" in manifest:
        found += blobs_of(manifest["base"])
    return found + list((manifest.get("adaptation") or {}).get("tensors", {}).values())


def parts_of(manifest: Mapping[str, Any]) -> list[str]:
    """The digests of the artifacts that a manifest refers to."""
    return list(manifest["parts"].values()) if manifest["kind"] == "Forked" else []


def measured_of(value: Any) -> dict[str, Any]:
    """A report's or a package's measured values as JSON, for its step's record."""
    if isinstance(value, Package) and value.measured:
        return {"tables": {k: _without_measured(dataclasses.asdict(t)) for k, t in value.measured.items()}}
    if not isinstance(value, Report):
        return {}
    parts: dict[str, dict[str, Any]] = {
        "metrics": {k: _metric(m) for k, m in value.metrics.items() if m.measured},
        "tables": {k: _without_measured(dataclasses.asdict(t)) for k, t in value.tables.items() if t.measured},
        "series": {k: _without_measured(dataclasses.asdict(s)) for k, s in value.series.items() if s.measured},
    }
    return {name: part for name, part in parts.items() if part}

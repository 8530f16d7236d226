"""The store: every finished value once, under its digest, and what each step's key came to.

    FORMAT                  {"format": 1}
    blobs/ab/abcd…          a tensor (header of dtype and shape, then elements) or a file's bytes, under its own SHA-256
    artifacts/ab/abcd….json a value's manifest, whose digest is its name; it refers to blobs
    keys/ab/abcd….json      a step's record: key → digest, with time taken, measured values and curves
    states/<key>            the last checkpoint of a process that has not finished
    leases/<key>.json       who is computing a key, with a heartbeat
    runs/<id>.json          what each run did
    index.sqlite            a database made from the above; it can be rebuilt

Whatever is written goes to a temporary file beside its place and is renamed, manifests after their blobs and records last: a
process that is killed leaves nothing half-written in sight. Digests are checked when a blob is first read.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import mmap
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mapsto.digest import digest_bytes, digest_json, dumps, tensor_bytes, tensor_from_bytes
from mapsto.errors import MapstoError, StoreError
from mapsto.kinds import (
    Forked,
    Metric,
    Network,
    Package,
    Report,
    Series,
    Table,
)
from mapsto.nn import portable
from mapsto.process import Foreign, State

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT", "Finding", "Record", "Store", "default_store", "network_digest"]

FORMAT = 1
HEARTBEAT = 2.0
"""Seconds between a lease's heartbeats."""
EXPIRY = 20.0
"""Seconds without a heartbeat after which a lease on another host is void; on this host a dead process voids it at once."""


def default_store() -> Path:
    """``MAPSTO_STORE``, or a folder of the user's cache."""
    import platformdirs

    given = os.environ.get("MAPSTO_STORE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("mapsto")) / "store"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a step's key came to."""

    key: str
    digest: str
    kind: str
    name: str
    version: int
    inputs: tuple[str, ...]
    seconds: float
    created: float
    measured: dict[str, Any] = field(default_factory=dict[str, Any])
    """A report's or a package's measured values: they differ from run to run, so they stand here and not in its artifact."""
    curves: dict[str, Any] | None = None
    """``{"columns": [...], "rows": [...]}`` of a process's metrics by step."""
    warnings: tuple[str, ...] = ()
    """What the step warned of; a hit says it again."""
    notes: tuple[str, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A damaged or missing piece that `Store.verify` found."""

    path: str
    what: str
    used_by: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------- values ⇄ manifests

Put = Callable[[Any], str]


def encode(value: Any, put: Put) -> dict[str, Any]:
    """A value's manifest; `put` stores a tensor or bytes and gives its digest. Measured values are left out."""
    if isinstance(value, Network):
        return portable.encode(value, put)
    if isinstance(value, Report):
        return {
            "kind": "Report",
            "metrics": {
                k: _without_measured(dataclasses.asdict(m)) for k, m in value.metrics.items() if not m.measured
            },
            "tables": {k: _without_measured(dataclasses.asdict(t)) for k, t in value.tables.items() if not t.measured},
            "series": {k: _without_measured(dataclasses.asdict(s)) for k, s in value.series.items() if not s.measured},
            "pictures": {k: put(p) for k, p in value.pictures.items()},
        }
    if isinstance(value, Package):
        return {"kind": "Package", "files": {name: put(Path(path)) for name, path in sorted(value.files.items())}}
    if isinstance(value, Forked):
        return {"kind": "Forked", "parts": dict(value.parts)}
    raise StoreError(f"a value of type {type(value).__name__} is not one of mapsto's kinds")


def _without_measured(tree: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in tree.items() if k != "measured"}


def network_digest(value: Network) -> str:
    """The digest that the network has in any store."""
    return digest_json(encode(value, lambda blob: digest_bytes(_blob_bytes(blob))))


def _blob_bytes(blob: Any) -> bytes:
    if isinstance(blob, bytes):
        return blob
    if isinstance(blob, Path):
        return blob.read_bytes()
    return tensor_bytes(blob)


# ----------------------------------------------------------------------------------------------------------------- the store


class Store:
    """A folder (or any fsspec URL) of digests, as the module's docstring draws it."""

    def __init__(self, root: Path | str | None = None) -> None:
        given = str(root) if root is not None else str(default_store())
        if not given.strip():
            raise StoreError("the store's place is empty", where="--store", hint="give a folder or an fsspec URL")
        self.url = given if "://" in given else None
        if self.url is not None:
            import platformdirs

            cache = Path(platformdirs.user_cache_dir("mapsto")) / "remote" / digest_bytes(given.encode())[:16]
            self.root = cache
        else:
            self.root = Path(given).expanduser().absolute()
        self._remote = _Remote(self.url) if self.url is not None else None
        self._checked: set[str] = set()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the store's folder: {error.strerror}", where=str(self.root), hint="give another --store"
            ) from error
        self._check_format()

    def _check_format(self) -> None:
        text = self._read("FORMAT")
        if text is None:
            self._write("FORMAT", dumps({"format": FORMAT}).encode())
            return
        try:
            found = int(json.loads(text)["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                "its FORMAT file cannot be read", where=str(self.root), hint="give another --store"
            ) from error
        if found > FORMAT:
            raise StoreError(
                f"format {found} was written by a later mapsto; this one knows {FORMAT}",
                where=str(self.root),
                hint="upgrade mapsto, or give another --store",
            )

    # -- files

    def path(self, relative: str) -> Path:
        """Where a file of the store lies on this machine."""
        return self.root / relative

    def _write(self, relative: str, data: bytes | memoryview, *, durable: bool = False, shared: bool = True) -> None:
        target = self.path(relative)
        write_atomically(target, data, durable=durable)
        if shared and self._remote is not None:
            self._remote.put(relative, bytes(data))

    def _exists(self, relative: str) -> bool:
        """Whether the store itself has a file; what lies in the cache of a remote one does not count."""
        return self.path(relative).exists() if self._remote is None else self._remote.exists(relative)

    def _holds(self, relative: str, data: bytes | memoryview) -> bool:
        """Whether a file is there and undamaged: computing a value again must mend what was."""
        path = self.path(relative)
        if not self._exists(relative):
            return False
        return not path.exists() or (path.stat().st_size == len(data) and path.read_bytes() == data)

    def _read(self, relative: str) -> bytes | None:
        if self._remote is not None and relative.startswith(("keys/", "states/")):
            return self._remote.get(relative)
        try:
            return self.path(relative).read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(
                f"cannot be read: {error.strerror}",
                where=str(self.path(relative)),
                hint="check the permissions, or give another --store",
            ) from error
        if self._remote is None:
            return None
        data = self._remote.get(relative)
        if data is not None:
            write_atomically(self.path(relative), data)
        return data

    def _names(self, folder: str) -> Iterator[Path]:
        if self._remote is not None:
            self._remote.mirror(folder, self.root)
        root = self.path(folder)
        if root.is_dir():
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.name.endswith(".tmp"):
                    yield path

    # -- blobs

    def put_blob(self, blob: Tensor | bytes | Path) -> str:
        """Store a tensor, bytes or a file's content; gives its digest. What is there already is not written again."""
        data = _blob_bytes(blob)
        digest = digest_bytes(data)
        relative = _spread("blobs", digest)
        if not self._holds(relative, data):
            self._write(relative, data)
        return digest

    def blob_path(self, digest: str, *, used_by: str = "") -> Path:
        """A local file with the blob's bytes, checked against its digest the first time. Raises `StoreError` naming it."""
        relative = _spread("blobs", digest)
        path = self.path(relative)
        if digest not in self._checked:
            if not path.exists() and self._read(relative) is None:
                raise StoreError(
                    "a blob is missing", where=f"{path}{f' (of {used_by})' if used_by else ''}", hint=_RECOVER
                )
            if digest_bytes(path.read_bytes()) != digest:
                raise StoreError(
                    "a blob is damaged: its content does not match its digest",
                    where=f"{path}{f' (of {used_by})' if used_by else ''}",
                    hint=_RECOVER,
                )
            self._checked.add(digest)
        return path

    def tensor(self, digest: str, *, used_by: str = "") -> Tensor:
        """A tensor, memory-mapped copy-on-write: reading costs no copy, writing to it never reaches the store."""
        path = self.blob_path(digest, used_by=used_by)
        with path.open("rb") as file:
            return tensor_from_bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    # -- artifacts

    def save(self, value: Any) -> str:
        """Store a value and give its digest."""
        manifest = encode(value, self.put_blob)
        text = dumps({"format": FORMAT, **manifest})
        digest = digest_json(manifest)
        relative = _spread("artifacts", digest, ".json")
        if not self._holds(relative, text.encode()):
            self._write(relative, text.encode(), durable=True)
        return digest

    def manifest(self, digest: str) -> dict[str, Any]:
        """A value's manifest, checked against its digest."""
        relative = _spread("artifacts", digest, ".json")
        data = self._read(relative)
        if data is None:
            raise StoreError("an artifact is missing", where=str(self.path(relative)), hint=_RECOVER)
        try:
            tree = json.loads(data)
            version = int(tree.pop("format"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError("a manifest is damaged", where=str(self.path(relative)), hint=_RECOVER) from error
        if version > FORMAT:
            raise StoreError(
                f"an artifact has format {version}; this mapsto knows {FORMAT}",
                where=str(self.path(relative)),
                hint="upgrade mapsto",
            )
        if digest_json(tree) != digest:
            raise StoreError(
                "a manifest is damaged: it does not match its digest", where=str(self.path(relative)), hint=_RECOVER
            )
        return tree

    def load(self, digest: str, *, measured: Mapping[str, Any] | None = None) -> Any:
        """The value of that digest; a report or package gets its measured values from a step's record."""
        tree = self.manifest(digest)
        try:
            return self._decoded(tree, digest, measured or {})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(
                f"a manifest is not as this mapsto writes it ({type(error).__name__}: {error})",
                where=str(self.path(_spread("artifacts", digest, ".json"))),
                hint="upgrade mapsto, or run again with --force and the step that made it",
            ) from error

    def _decoded(self, tree: dict[str, Any], digest: str, measured: Mapping[str, Any]) -> Any:
        kind = tree["kind"]
        if kind == "Network":
            return self._decode_network(tree, digest)
        if kind == "Report":
            return self._decode_report(tree, digest, measured)
        if kind == "Package":
            return Package(
                files={n: self.blob_path(b, used_by=f"package {digest[:12]}, {n}") for n, b in tree["files"].items()},
                measured={k: _table({**v, "measured": True}) for k, v in measured.get("tables", {}).items()},
            )
        if kind == "Forked":
            return Forked(parts={label: self.load(part) for label, part in tree["parts"].items()})
        raise StoreError(f"an artifact of unknown kind '{kind}'", where=digest, hint="upgrade mapsto")

    def _decode_network(self, tree: dict[str, Any], digest: str) -> Network:
        of = f"network {digest[:12]}"
        return portable.decode(
            tree,
            lambda blob, name: self.tensor(blob, used_by=f"{of}, tensor {name}"),
            lambda blob, name: self.blob_path(blob, used_by=f"{of}, asset {name}").read_bytes(),
        )

    def _decode_report(self, tree: dict[str, Any], digest: str, measured: Mapping[str, Any]) -> Report:
        def merged(part: str) -> dict[str, dict[str, Any]]:
            own: dict[str, dict[str, Any]] = {k: {**v, "measured": False} for k, v in tree[part].items()}
            return own | {k: {**v, "measured": True} for k, v in measured.get(part, {}).items()}

        return Report(
            metrics={k: Metric(**v) for k, v in merged("metrics").items()},
            tables={k: _table(v) for k, v in merged("tables").items()},
            series={
                k: _build(Series, v, x=tuple(v["x"]), ys={n: tuple(y) for n, y in v["ys"].items()})
                for k, v in merged("series").items()
            },
            pictures={
                k: self.blob_path(b, used_by=f"report {digest[:12]}, picture {k}").read_bytes()
                for k, b in tree["pictures"].items()
            },
        )

    # -- records

    def record(self, key: str) -> Record | None:
        """What a key came to, or None. Reads one small file; opens nothing."""
        relative = _spread("keys", key, ".json")
        data = self._read(relative)
        if data is None:
            return None
        try:
            tree = json.loads(data)
            if tree["format"] > FORMAT:
                raise StoreError(
                    f"a record has format {tree['format']}; this mapsto knows {FORMAT}",
                    where=str(self.path(relative)),
                    hint="upgrade mapsto",
                )
            if not re.fullmatch(r"[0-9a-f]{64}", tree["digest"]):
                raise ValueError("not a digest")
            texts = {name: tuple(tree.get(name, ())) for name in ("warnings", "notes")}
            return _build(Record, tree, inputs=tuple(tree["inputs"]), **texts)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                "a record is damaged", where=str(self.path(relative)), hint="delete that file: its step runs again"
            ) from error

    def commit(self, record: Record) -> Record:
        """Write a step's record, its last act. If another got there first, the two are compared and the first one stands."""
        first = self.record(record.key)
        if first is not None and first.digest == record.digest:
            return first
        if first is not None:
            raise StoreError(
                f"two computations of one step gave different results: {first.digest[:12]} and {record.digest[:12]}",
                where=f"{record.name}, key {record.key[:12]}",
                hint="the mapping is not deterministic; report it, or run it again with --force",
            )
        self._write(_spread("keys", record.key, ".json"), dumps(dataclasses.asdict(record)).encode(), durable=True)
        return record

    def forget(self, key: str) -> None:
        """Drop a key's record and checkpoint, so that the step runs again."""
        for relative in (_spread("keys", key, ".json"), f"states/{key}"):
            self.path(relative).unlink(missing_ok=True)
            if self._remote is not None:
                self._remote.drop(relative)

    # -- checkpoints

    def save_state(self, key: str, state: State) -> None:
        """Store the checkpoint of a process, replacing the one before."""
        self._write(f"states/{key}", encode_state(state))

    def load_state(self, key: str) -> State | None:
        """The last checkpoint, or None. A damaged one is as good as none: the process starts anew."""
        data = self._read(f"states/{key}")
        return None if data is None else decode_state(data)

    def drop_state(self, key: str) -> None:
        """Drop a checkpoint that is no longer needed."""
        self.path(f"states/{key}").unlink(missing_ok=True)
        if self._remote is not None:
            self._remote.drop(f"states/{key}")

    # -- leases

    @contextmanager
    def lease(self, key: str, *, waiting: Callable[[str], None] = lambda holder: None) -> Generator[bool]:
        """Hold a key while computing it. Gives True to its holder; False after waiting for another who has committed it."""
        relative = f"leases/{key}.json"
        path = self.path(relative)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path) from error
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        while True:
            try:
                _create_exclusively(path, dumps(mine | {"beat": time.time()}).encode())
                break
            except FileExistsError:
                holder = _read_lease(path)
                if holder is not None and _is_void(holder):
                    _steal(path, holder)
                    continue
                if holder is not None:
                    waiting(f"{holder['host']}, process {holder['pid']}")
                time.sleep(0.2)
                if self.record(key) is not None:
                    yield False
                    return
        stop = threading.Event()
        beat = threading.Thread(target=_heartbeat, args=(path, mine, stop), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            stop.set()
            beat.join()
            held = _read_lease(path)
            if held is not None and held.get("token") == mine["token"]:
                path.unlink(missing_ok=True)

    # -- upkeep

    def records(self) -> Iterator[Record]:
        """Every step's record."""
        for path in self._names("keys"):
            record = self.record(path.stem)
            if record is not None:
                yield record

    def ls(self) -> list[dict[str, Any]]:
        """One row a record: key, digest, name, kind, seconds, bytes of its blobs, when it was made (seconds of the epoch)."""
        rows: list[dict[str, Any]] = []
        for record in self.records():
            try:
                size = sum(
                    self.path(_spread("blobs", blob)).stat().st_size for blob in blobs_of(self.manifest(record.digest))
                )
            except (StoreError, OSError):
                size = None
            rows.append(
                {
                    "key": record.key,
                    "digest": record.digest,
                    "name": record.name,
                    "kind": record.kind,
                    "seconds": record.seconds,
                    "bytes": size,
                    "created": record.created,
                }
            )
        return sorted(rows, key=lambda row: row["created"])

    def verify(self) -> list[Finding]:
        """Check every record, manifest and blob against its digest; gives what is damaged or missing, with who uses it."""
        findings: list[Finding] = []
        users: dict[str, list[str]] = {}
        for path in self._names("keys"):
            try:
                record = self.record(path.stem)
            except StoreError as error:
                findings.append(Finding(path=str(path), what=error.what))
                continue
            if record is not None and not self.path(_spread("artifacts", record.digest, ".json")).exists():
                findings.append(
                    Finding(
                        path=str(path), what=f"its artifact {record.digest[:12]} is missing", used_by=(record.name,)
                    )
                )
        for path in self._names("artifacts"):
            try:
                for blob in blobs_of(self.manifest(path.stem)):
                    users.setdefault(blob, []).append(path.stem)
            except MapstoError as error:
                findings.append(Finding(path=str(path), what=getattr(error, "what", str(error))))
        for blob, used_by in sorted(users.items()):
            path = self.path(_spread("blobs", blob))
            named = tuple(digest[:12] for digest in used_by)
            if not path.exists():
                findings.append(Finding(path=str(path), what="a blob is missing", used_by=named))
            elif digest_bytes(path.read_bytes()) != blob:
                findings.append(
                    Finding(
                        path=str(path), what="a blob is damaged: its content does not match its digest", used_by=named
                    )
                )
        return findings

    def gc(self, *, keep_days: float = 0.0, dry_run: bool = False) -> dict[str, int]:
        """Remove what no record refers to, temporary files of dead processes and void leases.

        Records older than `keep_days` are dropped first where it is above 0. Leased artifacts are spared. Gives the number of
        files and bytes removed.
        """
        now = time.time()
        leased = {
            path.stem for path in self._names("leases") if (h := _read_lease(path)) is not None and not _is_void(h)
        }
        doomed: list[Path] = []
        live_artifacts: set[str] = set()
        pending: list[str] = []
        for path in self._names("keys"):
            record = self.record(path.stem)
            if record is None:
                continue
            if keep_days > 0 and now - record.created > keep_days * 86400 and record.key not in leased:
                doomed.append(path)
            else:
                pending.append(record.digest)
        while pending:
            digest = pending.pop()
            if digest in live_artifacts:
                continue
            live_artifacts.add(digest)
            pending.extend(parts_of(self.manifest(digest)))
        live_blobs = {blob for digest in live_artifacts for blob in blobs_of(self.manifest(digest))}
        young = now - 3600 if leased else now
        for folder, live in (("artifacts", live_artifacts), ("blobs", live_blobs)):
            doomed += [p for p in self._names(folder) if p.stem not in live and p.stat().st_mtime <= young]
        doomed += [p for p in self._names("states") if p.name not in leased and self.record(p.name) is not None]
        doomed += [p for p in self._names("leases") if p.stem not in leased]
        doomed += [p for p in self.root.rglob("*.tmp") if now - p.stat().st_mtime > 3600]
        size = sum(path.stat().st_size for path in doomed if path.exists())
        if not dry_run:
            for path in doomed:
                path.unlink(missing_ok=True)
                if self._remote is not None:
                    self._remote.drop(path.relative_to(self.root).as_posix())
        return {"files": len(doomed), "bytes": size}

    # -- runs

    def save_run(self, run: Mapping[str, Any]) -> None:
        """Store what a run did, under ``run["id"]``."""
        self._write(f"runs/{run['id']}.json", dumps(dict(run)).encode(), durable=True)

    def runs(self) -> Iterator[dict[str, Any]]:
        """Every run, oldest first."""
        for path in self._names("runs"):
            try:
                yield json.loads(path.read_bytes())
            except ValueError as error:
                raise StoreError("a run's file is damaged", where=str(path), hint="delete that file") from error


_RECOVER = "`mapsto store verify` finds all that is damaged; run again with --force and the step that made it"


T = TypeVar("T")


def _build(cls: type[T], tree: Mapping[str, Any], **changes: Any) -> T:
    """A dataclass from JSON, some of its fields given in their own types."""
    values: dict[str, Any] = {**tree, **changes}
    return cls(**values)


def _table(tree: Mapping[str, Any]) -> Table:
    return _build(Table, tree, columns=tuple(tree["columns"]), rows=tuple(tuple(row) for row in tree["rows"]))


def _spread(folder: str, digest: str, suffix: str = "") -> str:
    return f"{folder}/{digest[:2]}/{digest}{suffix}"


def blobs_of(manifest: Mapping[str, Any]) -> list[str]:
    """The digests of the blobs that a manifest refers to."""
    found: list[str] = []
    for part in ("tensors", "assets", "pictures", "files"):
        found += manifest.get(part, {}).values()
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
        "metrics": {k: _without_measured(dataclasses.asdict(m)) for k, m in value.metrics.items() if m.measured},
        "tables": {k: _without_measured(dataclasses.asdict(t)) for k, t in value.tables.items() if t.measured},
        "series": {k: _without_measured(dataclasses.asdict(s)) for k, s in value.series.items() if s.measured},
    }
    return {name: part for name, part in parts.items() if part}


# ------------------------------------------------------------------------------------------------------------------- states


def encode_state(state: State) -> bytes:
    """A checkpoint: a digest, then JSON of the tree and tensors as blobs, length-prefixed. No pickle."""
    blobs: list[bytes] = []

    def walk(value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return {"$f": value.hex()}
        if isinstance(value, bytes):
            return {"$b": base64.b64encode(value).decode()}
        if isinstance(value, Foreign):
            return {"$x": [value.codec, base64.b64encode(value.data).decode()]}
        if isinstance(value, (list, tuple)):
            return [walk(v) for v in cast("list[Any]", value)]
        if isinstance(value, dict):
            return {"$d": [[walk(k), walk(v)] for k, v in cast("dict[Any, Any]", value).items()]}
        import torch

        if isinstance(value, torch.Tensor):
            blobs.append(tensor_bytes(value))
            return {"$t": len(blobs) - 1}
        raise StoreError(
            f"a process's state holds a {type(value).__name__}",
            hint="use tensors, numbers, strings, bytes, lists, dicts",
        )

    tree = dumps({"format": FORMAT, "tree": walk(state), "blobs": []}).encode()
    body = b"".join(len(part).to_bytes(8, "little") + part for part in (tree, *blobs))
    return bytes.fromhex(digest_bytes(body)) + body


def decode_state(data: bytes) -> State | None:
    """The checkpoint, or None where its digest shows that it is damaged."""
    body = memoryview(data)[32:]
    if digest_bytes(body) != data[:32].hex():
        return None
    parts: list[memoryview] = []
    offset = 0
    while offset < len(body):
        length = int.from_bytes(body[offset : offset + 8], "little")
        parts.append(body[offset + 8 : offset + 8 + length])
        offset += 8 + length
    head = json.loads(bytes(parts[0]))
    if head["format"] > FORMAT:
        raise StoreError(f"a checkpoint has format {head['format']}; this mapsto knows {FORMAT}", hint="upgrade mapsto")

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(v) for v in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        (tag, inner), *_ = cast("dict[str, Any]", value).items()
        if tag == "$f":
            return float.fromhex(inner)
        if tag == "$b":
            return base64.b64decode(inner)
        if tag == "$x":
            return Foreign(inner[0], base64.b64decode(inner[1]))
        if tag == "$t":
            return tensor_from_bytes(bytearray(parts[1 + inner]))
        return {walk(k): walk(v) for k, v in inner}

    return walk(head["tree"])


# -------------------------------------------------------------------------------------------------------------------- files


def write_atomically(target: Path, data: bytes | memoryview, *, durable: bool = False) -> None:
    """Write to a temporary file beside `target` and rename it. Leaves nothing behind, after Ctrl-C neither. Raises `StoreError`."""
    temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def disk_error(error: OSError, target: Path) -> StoreError:
    """What went wrong with a write, with the remedy."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"the disk is full: {target.name} could not be written",
            where=str(target.parent),
            hint="free some space (`mapsto store gc`) or give another --store or --out, then run the same command again: it goes on",
        )
    return StoreError(
        f"cannot be written: {error.strerror}",
        where=str(target),
        hint="check the permissions, or give another --store or --out",
    )


def _create_exclusively(path: Path, data: bytes) -> None:
    """Create a file with its content in one step: a hard link of a finished file, so that no one reads half of it."""
    temporary = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _read_lease(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _is_void(lease: Mapping[str, Any]) -> bool:
    """A lease is void when its process is gone (on this host) or its heartbeat is too old (elsewhere)."""
    import psutil

    if lease["host"] == socket.gethostname():
        return not psutil.pid_exists(int(lease["pid"]))
    return time.time() - float(lease["beat"]) > EXPIRY


def _steal(path: Path, holder: Mapping[str, Any]) -> None:
    """Remove a void lease: rename it first, so that of two who try only one removes it, and check what was renamed."""
    grave = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    taken = _read_lease(grave)
    if taken is not None and taken.get("token") != holder.get("token"):
        with suppress(FileExistsError):
            os.link(grave, path)
    grave.unlink(missing_ok=True)


def _heartbeat(path: Path, mine: Mapping[str, Any], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            write_atomically(path, dumps({**mine, "beat": time.time()}).encode())
        except StoreError:
            continue  # a full disk must not end the computation; on this host the process's life is what counts


class _Remote:
    """Blobs, manifests, records and checkpoints on an fsspec URL; the local root is their cache."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.fs, self.base = cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
        except (ValueError, ImportError) as error:
            raise StoreError(f"{error}", where=url, hint="give a folder, or a URL that fsspec knows") from error

    def put(self, relative: str, data: bytes) -> None:
        path = f"{self.base}/{relative}"
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(path, data)

    def get(self, relative: str) -> bytes | None:
        try:
            return self.fs.cat_file(f"{self.base}/{relative}")
        except FileNotFoundError:
            return None

    def exists(self, relative: str) -> bool:
        return bool(self.fs.exists(f"{self.base}/{relative}"))

    def drop(self, relative: str) -> None:
        try:
            self.fs.rm_file(f"{self.base}/{relative}")
        except FileNotFoundError:
            return

    def mirror(self, folder: str, root: Path) -> None:
        """Fetch what the folder holds remotely and is not here yet."""
        try:
            names: list[str] = self.fs.find(f"{self.base}/{folder}")
        except FileNotFoundError:
            return
        for name in names:
            relative = name[len(self.base) :].lstrip("/")
            if not (root / relative).exists():
                data = self.get(relative)
                if data is not None:
                    write_atomically(root / relative, data)

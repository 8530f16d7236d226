"""The store: every finished value once, under its digest, and what each step's key came to.

    FORMAT                  {"format": 1}
    blobs/ab/abcd…          a tensor (header of dtype and shape, then elements) or a file's bytes, under its own SHA-256
    artifacts/ab/abcd….json a value's manifest, whose digest is its name; it refers to blobs
    keys/ab/abcd….json      a step's record: key → digest, with time taken, measured values and curves
    states/<key>            the last checkpoint of a process that has not finished
    states/<key>-log        its rows of metrics so far (see `mapsto.store.row_log`)
    leases/<key>.lock       who is computing a key, and what it is about to commit (see `mapsto.store.lock`)
    runs/<id>.json          what each run did
    index.sqlite            a database made from the above; it can be rebuilt

Whatever is written goes to a temporary file beside its place and is renamed, manifests after their blobs and records last: a
process that is killed leaves nothing half-written in sight. Digests are checked when a blob is first read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mapsto.errors import StoreError, carrying, command, trouble
from mapsto.kinds.canonical import dumps
from mapsto.process import State
from mapsto.store import lock, upkeep
from mapsto.store.codec import blob_bytes, build, decode, encode
from mapsto.store.digest import digest_bytes, digest_json, tensor_from_bytes
from mapsto.store.files import FORMAT, disk_error, spread, write_atomically
from mapsto.store.remote import Remote
from mapsto.store.state import decode_state, encode_state

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Record", "Store", "default_store"]


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
    comparison: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the step's network lost: against what it was ``given``, and against the ``first`` trained one (`mapsto.run.verdict`)."""
    account: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the step's process tells of its work (`mapsto.process.Live.account`)."""
    attached: str = ""
    """The digest of a report with what the step shows besides its result (`mapsto.context.Context.attach`); empty for nothing."""
    format: int = FORMAT


_LATEST = 1e11
"""Seconds of the epoch; a time far behind anyone's."""


def _checked(record: Record) -> Record:
    """A record as it was read. Raises `TypeError` or `ValueError` for one that no mapsto wrote."""
    texts = (
        record.key,
        record.digest,
        record.kind,
        record.name,
        record.attached,
        *record.inputs,
        *record.warnings,
        *record.notes,
    )
    trees = (record.measured, record.comparison, record.account, {} if record.curves is None else record.curves)
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(tree, dict) for tree in trees):
        raise TypeError("a field is of another kind")
    if type(record.version) is not int or not 0 <= record.seconds < _LATEST or not 0 <= record.created < _LATEST:
        raise ValueError("a number that cannot be")
    return record


def _checked_run(run: dict[str, Any]) -> dict[str, Any]:
    """A run as it was read. Raises `TypeError`, `KeyError` or `ValueError` where what it published cannot be told: `gc` must spare that."""
    if type(run) is not dict:
        raise TypeError("no object")
    for each in run.get("published", ()):
        if not re.fullmatch(r"[0-9a-f]{64}", each["digest"]):
            raise ValueError("not a digest")
    return run


class Store:
    """A folder (or any fsspec URL) of digests, as the module's docstring draws it."""

    def __init__(self, root: Path | str | None = None) -> None:
        given = str(root) if root is not None else str(default_store())
        self._named: dict[str, list[str]] = {} if root is None else {"--store": [given]}
        if not given.strip():
            raise StoreError("the store's place is empty", where="--store", hint="give a folder or an fsspec URL")
        self.url = given if "://" in given else None
        if self.url is not None:
            import platformdirs

            cache = Path(platformdirs.user_cache_dir("mapsto")) / "remote" / digest_bytes(given.encode())[:16]
            self.root = cache
        else:
            self.root = Path(given).expanduser().absolute()
        self.remote = Remote(self.url) if self.url is not None else None
        self._checked: set[str] = set()
        self._held = threading.local()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what, remedy = trouble(error)
            raise StoreError(
                f"cannot make the store's folder: {what}",
                where=str(self.root),
                hint=f"{remedy}, or give another --store",
            ) from error
        self._check_format()

    def _check_format(self) -> None:
        text = self._read("FORMAT")
        if text is None:
            self._write("FORMAT", dumps({"format": FORMAT}).encode())
            return
        try:
            found = int(json.loads(text)["format"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise StoreError(
                "its FORMAT file cannot be read", where=str(self.root), hint="give another --store"
            ) from error
        if found > FORMAT:
            raise StoreError(
                f"format {found} was written by a later mapsto; this one knows {FORMAT}",
                where=str(self.root),
                hint="upgrade mapsto, or give another --store",
            )

    def _recovery(self) -> str:
        check = command("mapsto store verify --store {store}", store=self.url or self.root)
        return f"`{check}` finds all that is damaged; run again with --force and the step that made it"

    # -- files

    def path(self, relative: str) -> Path:
        """Where a file of the store lies on this machine."""
        return self.root / relative

    def _write(self, relative: str, data: bytes | memoryview, *, durable: bool = False, shared: bool = True) -> None:
        target = self.path(relative)
        with carrying(self._named):
            write_atomically(target, data, durable=durable)
        if shared and self.remote is not None:
            self.remote.put(relative, bytes(data))

    def _exists(self, relative: str) -> bool:
        """Whether the store itself has a file; what lies in the cache of a remote one does not count."""
        return self.path(relative).exists() if self.remote is None else self.remote.exists(relative)

    def _holds(self, relative: str, data: bytes | memoryview) -> bool:
        """Whether a file is there and undamaged: computing a value again must mend what was.

        On an object store it must also be too young for `gc`, which cannot know who is about to refer to it.
        """
        path = self.path(relative)
        if self.remote is not None:
            written = self.remote.modified(relative)
            if written is not None and time.time() - written > lock.GRACE / 2:
                return False
        if not self._exists(relative):
            return False
        return not path.exists() or (path.stat().st_size == len(data) and path.read_bytes() == data)

    def _read(self, relative: str) -> bytes | None:
        if self.remote is not None and relative.startswith(("keys/", "states/")):
            return self.remote.get(relative)
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
        if self.remote is None:
            return None
        data = self.remote.get(relative)
        if data is not None:
            write_atomically(self.path(relative), data)
        return data

    def names(self, folder: str) -> Iterator[Path]:
        if self.remote is not None:
            self.remote.mirror(folder, self.root)
        root = self.path(folder)
        if root.is_dir():
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.name.endswith(".tmp"):
                    yield path

    def listed(self, folder: str) -> list[str]:
        """What the store itself holds in a folder, relative to it. Nothing is fetched, and what a cache holds does not count."""
        if self.remote is not None:
            return sorted(name for name in self.remote.names(folder) if not name.endswith(".tmp"))
        return [path.relative_to(self.root).as_posix() for path in self.names(folder)]

    def content(self, relative: str) -> bytes | None:
        """The bytes of a file in the store itself, past any cache; None where there is none."""
        return self._read(relative) if self.remote is None else self.remote.get(relative)

    def size(self, relative: str) -> int | None:
        """Bytes of a file; None where it is gone or nobody says."""
        path = self.path(relative)
        if path.exists():
            return path.stat().st_size
        return None if self.remote is None else self.remote.size(relative)

    def place(self, relative: str) -> str:
        """Where a file of the store is, for people."""
        return str(self.path(relative)) if self.url is None else f"{self.url.rstrip('/')}/{relative}"

    @property
    def writable(self) -> bool:
        """Whether anything can be written at present: tried, as permissions do not say so for every user and file system."""
        probe = f".probe.{secrets.token_hex(4)}"
        try:
            self._write(probe, b"")
            self._drop(probe)
        except (StoreError, OSError):
            return False
        return True

    def condition(self) -> dict[str, str]:
        """How it is, in words: ``writable``, ``locks``, ``leases`` and ``checkpoints``."""
        return upkeep.condition(self)

    # -- blobs

    def put_blob(self, blob: Tensor | bytes | Path) -> str:
        """Store a tensor, bytes or a file's content; gives its digest. What is there already is not written again."""
        data = blob_bytes(blob)
        digest = digest_bytes(data)
        relative = spread("blobs", digest)
        with self._marking() as held:
            held.mark(digest)
            if not self._holds(relative, data):
                self._write(relative, data)
        return digest

    def blob_path(self, digest: str, *, used_by: str = "") -> Path:
        """A local file with the blob's bytes, checked against its digest the first time. Raises `StoreError` naming it."""
        relative = spread("blobs", digest)
        path = self.path(relative)
        if digest not in self._checked:
            if not path.exists() and self._read(relative) is None:
                raise StoreError(
                    "a blob is missing", where=f"{path}{f' (of {used_by})' if used_by else ''}", hint=self._recovery()
                )
            if digest_bytes(path.read_bytes()) != digest and not self._mended(relative, digest):
                raise StoreError(
                    "a blob is damaged: its content does not match its digest",
                    where=f"{path}{f' (of {used_by})' if used_by else ''}",
                    hint=self._recovery(),
                )
            self._checked.add(digest)
        return path

    def _mended(self, relative: str, digest: str) -> bool:
        """Whether a damaged copy of a remote blob was fetched again, whole."""
        data = None if self.remote is None else self.remote.get(relative)
        if data is None or digest_bytes(data) != digest:
            return False
        write_atomically(self.path(relative), data)
        return True

    def tensor(self, digest: str, *, used_by: str = "") -> Tensor:
        """A tensor, memory-mapped copy-on-write: reading costs no copy, writing to it never reaches the store."""
        import torch

        path = self.blob_path(digest, used_by=used_by)
        # Python's mmap keeps the file open; torch's does not: a network may have more tensors than a process may have files.
        data = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        return tensor_from_bytes(data.numpy())

    # -- artifacts

    def save(self, value: Any) -> str:
        """Store a value and give its digest."""
        with self._marking() as held:
            manifest = encode(value, self.put_blob)
            text = dumps({"format": FORMAT, **manifest})
            digest = digest_json(manifest)
            relative = spread("artifacts", digest, ".json")
            held.mark(digest)
            if not self._holds(relative, text.encode()):
                self._write(relative, text.encode(), durable=True)
        return digest

    def manifest(self, digest: str, *, cached: bool = True) -> dict[str, Any]:
        """A value's manifest, checked against its digest; past any cache where `cached` is false."""
        relative = spread("artifacts", digest, ".json")
        if self.remote is None or not cached:
            return self._manifest(digest, relative, self.content(relative))
        try:
            return self._manifest(digest, relative, self._read(relative))
        except StoreError:  # the copy may be damaged, and what it is of whole
            found = self._manifest(digest, relative, self.content(relative))
            self.path(relative).unlink(missing_ok=True)
            return found

    def _manifest(self, digest: str, relative: str, data: bytes | None) -> dict[str, Any]:
        if data is None:
            raise StoreError("an artifact is missing", where=str(self.path(relative)), hint=self._recovery())
        try:
            tree = json.loads(data)
            version = int(tree.pop("format"))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise StoreError("a manifest is damaged", where=str(self.path(relative)), hint=self._recovery()) from error
        if version > FORMAT:
            raise StoreError(
                f"an artifact has format {version}; this mapsto knows {FORMAT}",
                where=str(self.path(relative)),
                hint="upgrade mapsto",
            )
        if digest_json(tree) != digest:
            raise StoreError(
                "a manifest is damaged: it does not match its digest",
                where=str(self.path(relative)),
                hint=self._recovery(),
            )
        return tree

    def load(self, digest: str, *, measured: Mapping[str, Any] | None = None) -> Any:
        """The value of that digest; a report or package gets its measured values from a step's record."""
        tree = self.manifest(digest)
        try:
            return decode(tree, digest, self, measured or {})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise StoreError(
                f"a manifest is not as this mapsto writes it ({type(error).__name__}: {error})",
                where=str(self.path(spread("artifacts", digest, ".json"))),
                hint="upgrade mapsto, or run again with --force and the step that made it",
            ) from error

    # -- records

    def record(self, key: str) -> Record | None:
        """What a key came to, or None. Reads one small file; opens nothing."""
        relative = spread("keys", key, ".json")
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
            return _checked(build(Record, tree, inputs=tuple(tree["inputs"]), **texts))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
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
        self._write(spread("keys", record.key, ".json"), dumps(dataclasses.asdict(record)).encode(), durable=True)
        return record

    def forget(self, key: str) -> None:
        """Drop a key's record and checkpoints, so that the step runs again."""
        self._drop(spread("keys", key, ".json"))
        self.drop_states(key)

    def _drop(self, relative: str) -> None:
        try:
            self.path(relative).unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, self.path(relative)) from error
        if self.remote is not None:
            self.remote.drop(relative)

    # -- checkpoints

    def save_state(self, key: str, state: State) -> None:
        """Store the checkpoint of a process, replacing the one before."""
        self._write(f"states/{key}", encode_state(state))

    def load_state(self, key: str) -> State | None:
        """The last checkpoint, or None. A damaged one is as good as none: the process starts anew."""
        data = self._read(f"states/{key}")
        return None if data is None else decode_state(data)

    def has_state(self, key: str) -> bool:
        """Whether there is a checkpoint, damaged or not."""
        return self._exists(f"states/{key}")

    def drop_states(self, key: str) -> None:
        """Drop a step's checkpoints, of all its processes: they are no longer needed."""
        paths = set(self.path("states").glob(f"{key}*"))
        if self.remote is not None:
            paths |= set(map(self.path, self.remote.names("states")))
        for path in paths:
            if path.name.partition("-")[0] == key:
                self._drop(f"states/{path.name}")

    # -- leases

    @contextmanager
    def lease(self, key: str, *, waiting: Callable[[str], None] = lambda holder: None) -> Generator[bool]:
        """Hold a key while computing it. Gives True to its holder; False after waiting for another who has committed it.

        What is saved meanwhile in this thread is spared by `gc`, until the lease ends: commit before that.
        """

        def committed() -> bool:
            return self.record(key) is not None

        with lock.lease(self.path("leases"), key, committed=committed, waiting=waiting) as held:
            if held is None:
                yield False
                return
            with self._holding(held):
                yield True

    @contextmanager
    def in_use(self) -> Generator[None]:
        """What is saved or `use`d meanwhile in this thread is spared by `gc`. Nothing happens where nothing can be written."""
        with ExitStack() as stack:
            with suppress(StoreError):
                stack.enter_context(self._holding(stack.enter_context(self._anonymous("run"))))
            yield

    def use(self, digest: str) -> None:
        """Mark an artifact as used until the outermost of this thread's leases ends."""
        if leases := self._leases():
            with suppress(StoreError):
                leases[0].mark(digest)

    @contextmanager
    def _marking(self) -> Generator[lock.Lease]:
        """The lease that marks what is written now: this thread's innermost, or one for as long as this lasts."""
        if leases := self._leases():
            yield leases[-1]
            return
        with self._anonymous("save") as held, self._holding(held):
            yield held

    @contextmanager
    def _anonymous(self, what: str) -> Generator[lock.Lease]:
        name = f"{what}-{secrets.token_hex(8)}"
        with lock.lease(self.path("leases"), name, committed=lambda: False, waiting=lambda _: None) as held:
            yield cast("lock.Lease", held)

    @contextmanager
    def _holding(self, held: lock.Lease) -> Generator[None]:
        self._leases().append(held)
        try:
            yield
        finally:
            self._leases().remove(held)

    def _leases(self) -> list[lock.Lease]:
        return self._held.__dict__.setdefault("leases", [])

    # -- upkeep

    def records(self) -> Iterator[Record]:
        """Every step's record."""
        for path in self.names("keys"):
            record = self.record(path.stem)
            if record is not None:
                yield record

    def ls(self) -> list[dict[str, Any]]:
        """One row a record: key, digest, name, kind, seconds, bytes of its blobs, when it was made (seconds of the epoch)."""
        return upkeep.listing(self)

    def verify(self) -> list[upkeep.Finding]:
        """Check every record, manifest and blob against its digest; gives what is damaged or missing, with who uses it."""
        return upkeep.verify(self)

    def gc(
        self, *, keep_days: float = 0.0, checkpoint_days: float = upkeep.CHECKPOINT_DAYS, dry_run: bool = False
    ) -> dict[str, int]:
        """Remove what no record refers to, checkpoints of finished steps and abandoned ones, and what dead processes left.

        Records older than `keep_days` are dropped first where it is above 0; checkpoints that nobody has gone on from for
        `checkpoint_days` go. What a running step holds, uses or is about to commit stays; on an object store, where nobody can
        be asked, whatever is younger than a day. Gives the number of files and bytes removed.
        """
        return upkeep.collect(self, keep_days=keep_days, checkpoint_days=checkpoint_days, dry_run=dry_run)

    # -- runs

    def save_run(self, run: Mapping[str, Any]) -> None:
        """Store what a run did, under ``run["id"]``."""
        self._write(f"runs/{run['id']}.json", dumps(dict(run)).encode(), durable=True)

    def runs(self) -> Iterator[dict[str, Any]]:
        """Every run, oldest first."""
        for path in self.names("runs"):
            try:
                yield _checked_run(json.loads(path.read_bytes()))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise StoreError("a run's file is damaged", where=str(path), hint="delete that file") from error

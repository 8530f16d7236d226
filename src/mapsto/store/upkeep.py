"""Upkeep of a store: listing what it holds, finding what is damaged, removing what nothing refers to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import MapstoError, StoreError, command
from mapsto.store import lock
from mapsto.store.codec import blobs_of, parts_of
from mapsto.store.digest import digest_bytes
from mapsto.store.files import spread
from mapsto.store.row_log import checkpoint_name, log_name

if TYPE_CHECKING:
    from mapsto.store.store import Store

__all__ = ["Finding", "collect", "condition", "listing", "verify"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A damaged or missing piece that `Store.verify` found."""

    path: str
    what: str
    used_by: tuple[str, ...] = ()


def listing(store: Store) -> list[dict[str, Any]]:
    """One row a record: key, digest, name, kind, seconds, bytes of its blobs, when it was made (seconds of the epoch)."""
    rows: list[dict[str, Any]] = []
    for record in store.records():
        try:
            size = sum(
                store.path(spread("blobs", blob)).stat().st_size for blob in blobs_of(store.manifest(record.digest))
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


def verify(store: Store) -> list[Finding]:
    """Check every record, manifest and blob against its digest; gives what is damaged or missing, with who uses it."""
    findings: list[Finding] = []
    users: dict[str, list[str]] = {}
    for path in store.names("keys"):
        try:
            record = store.record(path.stem)
        except StoreError as error:
            findings.append(Finding(path=str(path), what=error.what))
            continue
        for digest in () if record is None else filter(None, (record.digest, record.attached)):
            if record is not None and not store.path(spread("artifacts", digest, ".json")).exists():
                what = f"its artifact {digest[:12]} is missing"
                findings.append(Finding(path=str(path), what=what, used_by=(record.name,)))
    for path in store.names("artifacts"):
        try:
            for blob in blobs_of(store.manifest(path.stem)):
                users.setdefault(blob, []).append(path.stem)
        except MapstoError as error:
            findings.append(Finding(path=str(path), what=getattr(error, "what", str(error))))
    for blob, used_by in sorted(users.items()):
        path = store.path(spread("blobs", blob))
        named = tuple(digest[:12] for digest in used_by)
        if not path.exists():
            findings.append(Finding(path=str(path), what="a blob is missing", used_by=named))
        elif digest_bytes(path.read_bytes()) != blob:
            findings.append(
                Finding(path=str(path), what="a blob is damaged: its content does not match its digest", used_by=named)
            )
    return findings


CHECKPOINT_DAYS = 30.0
"""How long the checkpoint of a run that was not taken up again is kept."""


def collect(
    store: Store, *, keep_days: float = 0.0, checkpoint_days: float = CHECKPOINT_DAYS, dry_run: bool = False
) -> dict[str, int]:
    """Remove what no record refers to, abandoned checkpoints, and what dead processes left; see `Store.gc`."""
    with lock.collecting(store.root) as locked:
        leases = lock.look(
            store.path("leases")
        )  # before the records: what is not marked any more has its record by now
        grace = lock.GRACE if store.remote is not None or not locked else 0.0
        roots, doomed = _records(store, keep_days, leases.names)
        roots += _published(store)
        artifacts = _reachable(store, roots, leases.marks)
        blobs = {blob for digest in artifacts for blob in blobs_of(store.manifest(digest))}
        for folder, live in (("artifacts", artifacts), ("blobs", blobs)):
            unused = [p for p in store.names(folder) if p.stem not in live and p.stem not in leases.marks]
            doomed += [path for path in unused if _age(store, path) >= grace]
        doomed += _checkpoints(store, leases.names, checkpoint_days * 86400)
        doomed += [path for path in store.root.rglob("*.tmp") if time.time() - path.stat().st_mtime > 3600]
        stale = [path for path in leases.stale if time.time() - path.stat().st_mtime >= (0.0 if locked else lock.GRACE)]
        size = sum(path.stat().st_size for path in (*doomed, *stale) if path.exists())
        if not dry_run:
            for path in doomed:
                path.unlink(missing_ok=True)
                if store.remote is not None:
                    store.remote.drop(path.relative_to(store.root).as_posix())
            for path in stale:
                lock.drop(path)
    return {"files": len(doomed) + len(stale), "bytes": size}


def condition(store: Store) -> dict[str, str]:
    """How a store is, in words: whether it can be written, whether locks work there, who holds what, what was left behind."""
    writable = store.writable
    remedy = "no: what is finished can be used, nothing can be added; check the permissions and the disk, or give another --store"
    found = {"writable": "yes" if writable else remedy}
    if writable and not lock.works(store.root):
        found["locks"] = (
            "none on this file system: two runs at once may compute the same step twice; the results are right"
        )
    else:
        found["locks"] = "work on this file system" if writable else "not known, as nothing can be written"
    clean = command("mapsto store gc --store {store}", store=store.url or store.root)
    leases = lock.look(store.path("leases")) if writable else lock.Leases()
    held = "; ".join(lock.holders(store.path("leases"))[:3]) if leases.names else ""
    stale = (
        f"; {len(leases.stale)} files of processes that ended without removing them: {clean}" if leases.stale else ""
    )
    found["leases"] = (f"{len(leases.names)} held ({held})" if leases.names else "none held") + stale
    names = (path for path in store.names("states") if checkpoint_name(path.name) == path.name)
    checkpoints = [path for path in names if path.name.partition("-")[0] not in leases.names]
    abandoned = _checkpoints(store, leases.names, CHECKPOINT_DAYS * 86400)
    size = sum(path.stat().st_size for path in checkpoints if path.exists()) / 2**20
    found["checkpoints"] = (
        f"{len(checkpoints)} of runs that were stopped ({size:.1f} MiB)" if checkpoints else "none of stopped runs"
    )
    if abandoned:
        found["checkpoints"] += (
            f", {len(abandoned)} of them not needed or not taken up for {CHECKPOINT_DAYS:.0f} days: {clean}"
        )
    return found


def _records(store: Store, keep_days: float, held: set[str]) -> tuple[list[str], list[Path]]:
    """The artifacts of records that stay, and the files of those that are older than `keep_days`."""
    kept: list[str] = []
    old: list[Path] = []
    for path in store.names("keys"):
        record = store.record(path.stem)
        if record is None:
            continue
        if keep_days > 0 and time.time() - record.created > keep_days * 86400 and record.key not in held:
            old.append(path)
        else:
            kept += [record.digest, *([record.attached] if record.attached else [])]
    return kept, old


def _published(store: Store) -> list[str]:
    """What runs have published and is still there."""
    named = [each["digest"] for run in store.runs() for each in run.get("published", ())]
    return [digest for digest in named if store.path(spread("artifacts", digest, ".json")).exists()]


def _reachable(store: Store, roots: list[str], marks: set[str]) -> set[str]:
    """The artifacts that are referred to, or marked and already there."""
    pending = roots + [mark for mark in marks if store.path(spread("artifacts", mark, ".json")).exists()]
    found: set[str] = set()
    while pending:
        digest = pending.pop()
        if digest not in found:
            found.add(digest)
            pending.extend(parts_of(store.manifest(digest)))
    return found


def _checkpoints(store: Store, held: set[str], oldest: float) -> list[Path]:
    """Checkpoints, each with its log, whose step is finished, or that nobody has gone on from for `oldest` seconds."""
    together: dict[str, list[Path]] = {}
    for path in store.names("states"):
        together.setdefault(checkpoint_name(path.name), []).append(path)
    found: list[Path] = []
    for name, paths in together.items():
        key = name.partition("-")[0]
        # a log without a number is not on the object store: it is this machine's copy
        dated = paths if store.remote is None else [path for path in paths if path.name != log_name(name)]
        age = min((_age(store, path) for path in dated), default=oldest)
        if key not in held and (age >= oldest or store.record(key) is not None):
            found += paths
    return found


def _age(store: Store, path: Path) -> float:
    """Seconds since a file was written. On an object store that does not say, it is new for ever: nothing in use may go."""
    if store.remote is None:
        return time.time() - path.stat().st_mtime
    modified = store.remote.modified(path.relative_to(store.root).as_posix())
    return 0.0 if modified is None else time.time() - modified

"""Upkeep of a store: listing what it holds, finding what is damaged, removing what nothing refers to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import MapstoError, StoreError
from mapsto.store.codec import blobs_of, parts_of
from mapsto.store.digest import digest_bytes
from mapsto.store.files import spread
from mapsto.store.lock import is_void, read_lease

if TYPE_CHECKING:
    from mapsto.store.store import Store

__all__ = ["Finding", "collect", "listing", "verify"]


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
        if record is not None and not store.path(spread("artifacts", record.digest, ".json")).exists():
            findings.append(
                Finding(path=str(path), what=f"its artifact {record.digest[:12]} is missing", used_by=(record.name,))
            )
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


def collect(store: Store, *, keep_days: float = 0.0, dry_run: bool = False) -> dict[str, int]:
    """Remove what no record refers to, temporary files of dead processes and void leases.

    Records older than `keep_days` are dropped first where it is above 0. Leased artifacts are spared. Gives the number of
    files and bytes removed.
    """
    now = time.time()
    leased = {path.stem for path in store.names("leases") if (h := read_lease(path)) is not None and not is_void(h)}
    doomed: list[Path] = []
    live_artifacts: set[str] = set()
    pending: list[str] = []
    for path in store.names("keys"):
        record = store.record(path.stem)
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
        pending.extend(parts_of(store.manifest(digest)))
    live_blobs = {blob for digest in live_artifacts for blob in blobs_of(store.manifest(digest))}
    young = now - 3600 if leased else now
    for folder, live in (("artifacts", live_artifacts), ("blobs", live_blobs)):
        doomed += [p for p in store.names(folder) if p.stem not in live and p.stat().st_mtime <= young]
    doomed += [p for p in store.names("states") if p.name not in leased and store.record(p.name) is not None]
    doomed += [p for p in store.names("leases") if p.stem not in leased]
    doomed += [p for p in store.root.rglob("*.tmp") if now - p.stat().st_mtime > 3600]
    size = sum(path.stat().st_size for path in doomed if path.exists())
    if not dry_run:
        for path in doomed:
            path.unlink(missing_ok=True)
            if store.remote is not None:
                store.remote.drop(path.relative_to(store.root).as_posix())
    return {"files": len(doomed), "bytes": size}

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
            sizes = [store.size(spread("blobs", blob)) for blob in blobs_of(store.manifest(record.digest))]
            size = None if None in sizes else sum(filter(None, sizes))
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
    artifacts = set(store.listed("artifacts"))
    for relative in store.listed("keys"):
        place = store.place(relative)
        try:
            record = store.record(_stem(relative))
        except StoreError as error:
            findings.append(Finding(path=place, what=error.what))
            continue
        for digest in () if record is None else filter(None, (record.digest, record.attached)):
            if record is not None and spread("artifacts", digest, ".json") not in artifacts:
                what = f"its artifact {digest[:12]} is missing"
                findings.append(Finding(path=place, what=what, used_by=(record.name,)))
    for relative in sorted(artifacts):
        try:
            for blob in blobs_of(store.manifest(_stem(relative), cached=False)):
                users.setdefault(blob, []).append(_stem(relative))
        except MapstoError as error:
            findings.append(Finding(path=store.place(relative), what=getattr(error, "what", str(error))))
    for blob, used_by in sorted(users.items()):
        relative = spread("blobs", blob)
        place, named = store.place(relative), tuple(digest[:12] for digest in used_by)
        content = store.content(relative)
        if content is None:
            findings.append(Finding(path=place, what="a blob is missing", used_by=named))
        elif digest_bytes(content) != blob:
            findings.append(
                Finding(path=place, what="a blob is damaged: its content does not match its digest", used_by=named)
            )
    return findings


def _stem(relative: str) -> str:
    """The digest or key that a file is named by."""
    return Path(relative).stem


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
        copies: list[Path] = []
        for folder, live in (("artifacts", artifacts), ("blobs", blobs)):
            there = list(map(store.path, store.listed(folder)))
            unused = [path for path in there if path.stem not in live and path.stem not in leases.marks]
            doomed += [path for path in unused if _age(store, path) >= grace]
            copies += _only_copies(store, folder, {*there}, leases.marks)
        doomed += _checkpoints(store, leases.names, checkpoint_days * 86400)
        doomed += [path for path in store.root.rglob("*.tmp") if time.time() - path.stat().st_mtime > 3600]
        stale = [path for path in leases.stale if time.time() - path.stat().st_mtime >= (0.0 if locked else lock.GRACE)]
        size = sum(store.size(path.relative_to(store.root).as_posix()) or 0 for path in (*doomed, *stale))
        if not dry_run:
            for path in copies:
                path.unlink(missing_ok=True)
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
    for path in map(store.path, store.listed("keys")):
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
    there = set(store.listed("artifacts")) if named else set[str]()
    return [digest for digest in named if spread("artifacts", digest, ".json") in there]


def _only_copies(store: Store, folder: str, there: set[Path], marks: set[str]) -> list[Path]:
    """Copies on this machine of what an object store does not hold any more: another machine's `gc` removed it."""
    if store.remote is None:
        return []
    found = [path for path in store.path(folder).rglob("*") if path.is_file() and path not in there]
    return [path for path in found if path.stem not in marks and time.time() - path.stat().st_mtime >= lock.GRACE]


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
    local = set(store.names("states")) if store.remote is None else set(store.path("states").glob("*"))
    for path in sorted(local | set(map(store.path, store.listed("states")))):
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

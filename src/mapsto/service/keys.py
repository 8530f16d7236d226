"""Who may do what: keys of high entropy, of which only the SHA-256 is stored.

A key opens the scopes that it was made for, within its tenant: tenants do not see each other's versions and feedback.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mapsto.errors import SpecError
from mapsto.service.refusal import Refusal
from mapsto.service.state import State

__all__ = ["SCOPES", "Caller", "Keys", "Scope", "made", "new_key"]

Scope = Literal["predict", "adapt", "learn", "metrics", "admin"]
"""``predict``: infer, metadata. ``adapt``: make versions from examples. ``learn``: give feedback. ``metrics``: sums over all
tenants. ``admin``: promote, roll back, keys, metrics."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "mapsto_"


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    """The key's id, or the subject of a token."""
    tenant: str
    scopes: frozenset[str]

    def require(self, *scopes: Scope) -> None:
        """Raises `Refusal` (403) where the caller has none of the scopes."""
        if self.scopes.isdisjoint(scopes):
            needed = " or ".join(f"'{scope}'" for scope in scopes)
            raise Refusal(
                403, f"this key may {', '.join(sorted(self.scopes)) or 'do nothing'}; the request needs {needed}"
            )


@dataclass(frozen=True)
class _Key:
    digest: bytes
    caller: Caller
    ends: float


class Keys:
    """The keys of a state, in memory; `refresh` reads them again."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._by_digest: Mapping[bytes, _Key] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the keys."""
        found: dict[bytes, _Key] = {}
        for row in self._state.all_keys():
            ends = min(row["expires"] or float("inf"), row["revoked"] or float("inf"))
            digest = bytes(row["digest"])
            caller = Caller(str(row["id"]), str(row["tenant"]), frozenset(str(row["scopes"]).split()))
            found[digest] = _Key(digest, caller, ends)
        self._by_digest = found

    def caller(self, key: str | bytes) -> Caller:
        """Whose a key is. Raises `Refusal` (401) for one that is not known, or no longer valid."""
        content = key.encode() if isinstance(key, str) else key
        digest = hashlib.sha256(content).digest()
        known = self._by_digest.get(digest)  # the time tells of the digest's first bytes, which tell nothing of a key
        if known is None or not hmac.compare_digest(known.digest, digest) or time.time() >= known.ends:
            raise Refusal(401, "the key is not known, or no longer valid")
        return known.caller


def new_key() -> str:
    """A key of 256 bits.

    >>> len(new_key())
    50
    """
    return _PREFIX + secrets.token_urlsafe(32)


def made(
    state: State, *, name: str = "", tenant: str = "default", scopes: Sequence[str] = SCOPES, days: float | None = None
) -> tuple[str, str]:
    """A new key, stored as its digest: its id and the key, which is shown only now.

    Raises
    ------
    SpecError
        A scope is not known, or the name is taken.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise SpecError(
            f"'{unknown[0]}' is no scope" if unknown else "no scope is given",
            where="--scope",
            hint=f"give some of {', '.join(SCOPES)}",
        )
    id_ = name or f"key-{secrets.token_hex(4)}"
    if any(row["id"] == id_ for row in state.all_keys()):
        raise SpecError(f"there is a key '{id_}' already", where="--name", hint="give another name, or rotate that one")
    key = new_key()
    expires = None if days is None else time.time() + days * 86_400
    state.add_key(id_=id_, digest=hashlib.sha256(key.encode()).digest(), tenant=tenant, scopes=scopes, expires=expires)
    return id_, key

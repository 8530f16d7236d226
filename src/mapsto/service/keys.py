"""Who may do what: keys of high entropy, of which only the SHA-256 is stored.

A key opens the scopes that it was made for, within its tenant: tenants do not see each other's versions and feedback.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mapsto.errors import SpecError
from mapsto.service.refusal import Refusal
from mapsto.service.state import State
from mapsto_runtime.shown import few, short

__all__ = [
    "ORDINARY",
    "PREFIX",
    "SCOPES",
    "Caller",
    "Keys",
    "RunKey",
    "Scope",
    "ended",
    "is_name",
    "made",
    "made_for_run",
    "rotated",
]

Scope = Literal["predict", "adapt", "learn", "metrics", "admin"]
"""``predict``: infer, metadata. ``adapt``: make versions from examples. ``learn``: give feedback. ``metrics``: sums over all tenants.
``admin``: promote, roll back, metrics."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
ORDINARY: tuple[Scope, ...] = ("predict", "adapt", "learn")
"""The scopes of a key that is made without any: what concerns its tenant alone."""
PREFIX = "mapsto_"
"""Keys begin so, which tells them from tokens, and lets scanners of repositories find one."""
_NAME = re.compile(r"[!-~]{1,64}")
_DAY = 86_400


def is_name(text: str) -> bool:
    """Whether a text may name a key or a tenant: 1 to 64 characters of ASCII, none of them blank.

    >>> is_name("team-a"), is_name("a team"), is_name("")
    (True, False, False)
    """
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    name: str
    """The key's id, or the subject of a token."""
    tenant: str
    scopes: frozenset[str]
    rate: float | None = None
    """Requests a second; None: as many as come."""
    burst: float = 1.0
    """Requests that may come at once."""

    def may(self, *scopes: Scope) -> bool:
        """Whether the caller has one of the scopes."""
        return not self.scopes.isdisjoint(scopes)

    def require(self, *scopes: Scope) -> None:
        """Raises `Refusal` (403) where the caller has none of the scopes."""
        if not self.may(*scopes):
            needed = " or ".join(f"'{scope}'" for scope in scopes)
            raise Refusal(
                403, f"this key may {', '.join(sorted(self.scopes)) or 'do nothing'}; the request needs {needed}"
            )


@dataclass(frozen=True)
class _Key:
    digest: bytes
    caller: Caller
    ends: float


@dataclass(frozen=True, kw_only=True)
class RunKey:
    """A key for one run of a service: it is in no state, so that nothing opens with it once that run's processes have ended, however."""

    name: str
    digest: str
    """Hexadecimal."""
    scopes: Sequence[str]

    def entry(self) -> _Key:
        """What is kept of it, valid without end."""
        return _Key(bytes.fromhex(self.digest), Caller(self.name, "default", frozenset(self.scopes)), float("inf"))


class Keys:
    """The keys of a state, in memory; `refresh` reads them again.

    Parameters
    ----------
    run
        A key that is valid beside them.
    """

    def __init__(self, state: State, run: RunKey | None = None) -> None:
        self._state = state
        self._own = [] if run is None else [run.entry()]
        self._by_digest: Mapping[bytes, _Key] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the keys that are still valid."""
        found = {key.digest: key for key in self._own}
        now = time.time()
        for row in self._state.all_keys():
            ends = _end(row)
            if ends <= now:
                continue
            digest = bytes(row["digest"])
            scopes = frozenset(str(row["scopes"]).split())
            caller = Caller(str(row["id"]), str(row["tenant"]), scopes, row["rate"], row["burst"] or 1.0)
            found[digest] = _Key(digest, caller, ends)
        self._by_digest = found

    def caller(self, key: bytes) -> Caller:
        """Whose a key is. Raises `Refusal` (401) for one that is not known, or no longer valid."""
        digest = hashlib.sha256(key).digest()
        known = self._by_digest.get(digest)  # the time tells of the digest's first bytes, which tell nothing of a key
        if known is None or not hmac.compare_digest(known.digest, digest) or time.time() >= known.ends:
            raise Refusal(401, "the key is not known, or no longer valid")
        return known.caller


def made_for_run(scopes: Sequence[str]) -> tuple[RunKey, str]:
    """A key for a run, and its text, which is shown only now."""
    key = _new_key()
    name = f"run-{secrets.token_hex(4)}"
    return RunKey(name=name, digest=_digest(key).hex(), scopes=tuple(scopes)), key


def made(
    state: State,
    *,
    name: str | None = None,
    tenant: str = "default",
    scopes: Sequence[str] = ORDINARY,
    days: float | None = None,
    rate: float | None = None,
    burst: float | None = None,
) -> tuple[str, str]:
    """A new key, stored as its digest: its name and the key, which is shown only now.

    Parameters
    ----------
    days
        For which it is valid; None: until it is ended.
    rate
        Requests a second that it may make, of all kinds together; None: as many as come.
    burst
        Requests that may come at once; None: those of a second, at least one.

    Raises
    ------
    SpecError
        A scope is not known, a name is none or taken, or the limits make no sense.
    """
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise SpecError(
            f"'{short(unknown[0])}' is no scope" if unknown else "no scope is given",
            where="--scope",
            hint=f"give some of {', '.join(SCOPES)}",
        )
    id_ = name if name is not None else f"key-{secrets.token_hex(4)}"
    for text, where in ((id_, "--name"), (tenant, "--tenant")):
        if not is_name(text):
            raise SpecError(
                f"'{short(text)}' is no name", where=where, hint="1 to 64 letters, digits and signs, without blanks"
            )
    for number, where, unit in ((rate, "--rate", "requests a second"), (burst, "--burst", "requests")):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise SpecError(f"{number:g} is no number of {unit}", where=where, hint="give one above 0, or leave it out")
    if burst is not None and (rate is None or burst < 1):
        raise SpecError(
            "is the number of requests at once within a rate, at least 1", where="--burst", hint="give --rate too"
        )
    key = _new_key()
    added = state.add_key(
        id_=id_,
        digest=_digest(key),
        tenant=tenant,
        scopes=[scope for scope in SCOPES if scope in scopes],
        expires=None if days is None else time.time() + days * _DAY,
        rate=rate,
        burst=burst if burst is not None or rate is None else max(1.0, rate),
    )
    if not added:
        raise SpecError(f"there is a key '{id_}' already", where="--name", hint="give another name, or rotate that one")
    return id_, key


def rotated(state: State, name: str, *, grace_days: float) -> str:
    """A new key for what another opens, as long valid as that was; the old one ends after the grace period.

    Raises
    ------
    SpecError
        There is no valid key of that name.
    """
    rows = [row for row in state.all_keys() if row["id"] == name and _end(row) > time.time()]
    if not rows:
        raise _unknown(state, name)
    last, key, now = rows[-1], _new_key(), time.time()
    state.add_key(
        id_=name,
        digest=_digest(key),
        tenant=last["tenant"],
        scopes=str(last["scopes"]).split(),
        expires=None if last["expires"] is None else now + last["expires"] - last["created"],
        rate=last["rate"],
        burst=last["burst"],
        others_end=now + grace_days * _DAY,
    )
    return key


def ended(state: State, name: str) -> None:
    """Let no key of that name be valid from now on. Raises `SpecError` where there is none."""
    if not state.end_key(name, at=time.time()):
        raise _unknown(state, name)


def _end(row: Mapping[str, Any]) -> float:
    """When a key ends, in seconds of the epoch."""
    ends = [row[name] for name in ("expires", "revoked") if row[name] is not None]
    return min(ends, default=float("inf"))


def _unknown(state: State, name: str) -> SpecError:
    names = dict.fromkeys(str(row["id"]) for row in state.all_keys() if _end(row) > time.time())
    said = f"those that are valid are {few(list(names))}" if names else "none is valid; make one"
    return SpecError(f"there is no valid key '{short(name)}'", where="--name", hint=said)


def _new_key() -> str:
    """A key of 256 bits."""
    return PREFIX + secrets.token_urlsafe(32)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()

"""The public keys that tokens are signed with: a JSON Web Key Set (RFC 7517) by URL or file, kept in memory and read again.

They are read again after a time, and for a key that is not known; never more often than once in a pause, whatever is asked for. While the
set cannot be read, the keys in memory go on for a bounded time; then tokens are answered with 503, since nobody can tell whether they hold.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import jwt

from mapsto.errors import SpecError
from mapsto.service.refusal import Refusal

__all__ = ["ALGORITHMS", "SigningKeys"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key, all of them: a secret that is shared, and no signature at all, are never accepted."""
_MOST_BYTES = 1 << 20
_SECRET = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth"))
"""Members of a key that are nobody's here."""


def _note(text: str) -> None:
    sys.stderr.write(f"mapsto: {text}\n")


class SigningKeys:
    """A key set.

    Parameters
    ----------
    place
        A file, an https URL, or an http URL of this machine.
    fresh
        Seconds after which it is read again, beside the requests.
    most_age
        Seconds for which keys go on that cannot be read again.
    pause
        Seconds between two attempts at least.
    timeout
        Seconds of an attempt.
    note
        Told once that the set cannot be read, and once that it can again.

    Raises
    ------
    SpecError
        The file holds no key set, or the URL is one that others may answer for.
    """

    def __init__(
        self,
        place: str,
        *,
        fresh: float = 300.0,
        most_age: float = 3600.0,
        pause: float = 10.0,
        timeout: float = 5.0,
        note: Callable[[str], None] = _note,
    ) -> None:
        self._place, self._fresh, self._most_age, self._pause, self._timeout = place, fresh, most_age, pause, timeout
        self._note = note
        self.generation = 0
        """Grows with every set that is another than the one before."""
        self._text = b""
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read = self._tried = float("-inf")
        self._fails = False
        self._reading: asyncio.Future[None] | None = None
        if "://" in place:
            parts = urlsplit(place)
            if parts.scheme != "https" and (parts.scheme, parts.hostname) not in _LOCAL:
                raise SpecError(
                    "is no URL that only its owner can answer for", where=place, hint="give https, or a file"
                )
            return
        try:
            self._take(self._content())
        except (OSError, ValueError) as error:
            raise SpecError(
                f"holds no keys ({error})", where=place, hint="give a JSON Web Key Set (RFC 7517)"
            ) from error

    async def find(self, kid: str | None) -> jwt.PyJWK:
        """The key of an id; the only one, where a token names none.

        Raises
        ------
        Refusal
            401: there is no such key; 503: the set cannot be read, so that nobody knows.
        """
        age = time.monotonic() - self._read
        if age > self._most_age:
            await self._refreshed()
            if time.monotonic() - self._read > self._most_age:
                raise self._unreadable()
        elif age > self._fresh:
            self._refresh()
        found = self._of(kid)
        if found is None:
            await self._refreshed()
            found = self._of(kid)
        if found is None:
            raise self._unreadable() if self._fails else Refusal(401, "the token's signing key is not known")
        return found

    # -- private

    def _of(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refreshed(self) -> None:
        """Waits for an attempt, if there may be one now. A client that goes does not end it for the others."""
        attempt = self._refresh()
        if attempt is not None:
            await asyncio.shield(attempt)

    def _refresh(self) -> asyncio.Future[None] | None:
        now = time.monotonic()
        if self._reading is None and now - self._tried >= self._pause:
            self._tried = now
            self._reading = asyncio.ensure_future(self._attempt())
        return self._reading

    async def _attempt(self) -> None:
        try:
            self._take(await asyncio.to_thread(self._content))
        except (OSError, ValueError, HTTPException) as error:
            if not self._fails:
                self._note(f"the keys of tokens cannot be read from {self._place} ({error}); {self._goes_on()}")
            self._fails = True
        else:
            if self._fails:
                self._note(f"the keys of tokens can be read again from {self._place}")
            self._fails = False
        finally:
            self._reading = None

    def _goes_on(self) -> str:
        left = self._read + self._most_age - time.monotonic()
        return f"those in memory go on for {left:.0f} s" if left > 0 else "tokens are answered with 503"

    def _content(self) -> bytes:
        """The text of the set. Raises `OSError`, `ValueError` where it is none."""
        if "://" not in self._place:
            content = Path(self._place).read_bytes()
        else:
            request = urllib.request.Request(self._place, headers={"Accept": "application/json"})
            with _OPENER.open(request, timeout=self._timeout) as answer:
                content = answer.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return content

    def _take(self, content: bytes) -> None:
        """Take the keys of a set over. Raises `ValueError` where there is none that tokens may be signed with."""
        if content != self._text:
            keys = _keys_of(content)
            self._keys, self._text = keys, content
            self.generation += 1
        self._read = time.monotonic()

    def _unreadable(self) -> Refusal:
        return Refusal(503, "the keys of tokens cannot be read at present", retry_after=self._pause)


def _keys_of(content: bytes) -> dict[str, jwt.PyJWK]:
    try:
        tree: Any = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    listed: Any = tree.get("keys") if isinstance(tree, dict) else None
    found: dict[str, jwt.PyJWK] = {}
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK({name: value for name, value in each.items() if name not in _SECRET})
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):  # of a kind that nothing here reads
            continue
        if key.algorithm_name in ALGORITHMS:
            found[str(key.key_id or "")] = key
    if not found:
        raise ValueError("there is no public key for signatures in it")
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The keys are where they were said to be."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
_LOCAL = tuple(("http", host) for host in ("localhost", "127.0.0.1", "::1"))

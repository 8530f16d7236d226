"""Who asks, by what a request carries: a key of the state, or a token of an identity provider; and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapsto.errors import SpecError
from mapsto.service.keys import PREFIX, Caller, Keys
from mapsto.service.rate_limits import RateLimits
from mapsto.service.refusal import Refusal

if TYPE_CHECKING:
    from mapsto.service.tokens import Tokens

__all__ = ["Access", "AccessSettings", "authorization"]

_KEY = PREFIX.encode()


@dataclass(frozen=True, kw_only=True)
class AccessSettings:
    """What tells the callers of a service, and what is noted of them."""

    hosts: tuple[str, ...] = ()
    """Names that it answers to besides those of the loopback and the address that is listened on; ``*`` is any."""
    log: bool = False
    """Write a line for each request."""
    jwks: str = ""
    """The JSON Web Key Set of the identity provider, a URL or a file; empty: there are no tokens."""
    audience: str = ""
    issuer: str = ""

    def tokens(self) -> Tokens | None:
        """What verifies tokens; None where there are none. Raises `SpecError` where something is missing."""
        if not (self.jwks or self.audience or self.issuer):
            return None
        if not (self.jwks and self.audience and self.issuer):
            raise SpecError(
                "tokens need a key set, an audience and an issuer",
                where="--jwks",
                hint="give --audience and --issuer too",
            )
        from mapsto.service.signing_keys import SigningKeys
        from mapsto.service.tokens import Tokens

        return Tokens(SigningKeys(self.jwks), audience=self.audience, issuer=self.issuer)


class Access:
    """What tells callers."""

    def __init__(self, keys: Keys, tokens: Tokens | None = None) -> None:
        self._keys, self._tokens = keys, tokens
        self._limits = RateLimits()

    async def caller(self, header: bytes | None) -> Caller:
        """Who sent the value of ``Authorization`` or ``X-Api-Key``.

        Raises
        ------
        Refusal
            401: nobody is known by it; 429: the caller asks too often; 503: a token cannot be verified now.
        """
        given = authorization(header)
        if self._tokens is None or given.startswith(_KEY):
            caller = self._keys.caller(given)
        else:
            caller = await self._tokens.caller(given)
        if caller.rate is not None:
            self._limits.take(caller)
        return caller

    def charge(self, caller: Caller, more: int) -> None:
        """Count what a caller was let in for as so many requests more, so that he waits longer for the next."""
        if caller.rate is not None and more > 0:
            self._limits.charge(caller, more)

    def name_of(self, header: bytes) -> str:
        """The caller's name, as far as it is known without waiting; empty otherwise."""
        try:
            given = authorization(header)
            if self._tokens is not None and not given.startswith(_KEY):
                return self._tokens.name_of(given)
            return self._keys.caller(given).name
        except Refusal:
            return ""


def authorization(value: bytes | None) -> bytes:
    """The key or token of a header. Raises `Refusal` (401) where there is none."""
    if not value:
        raise Refusal(401, "no key is given: send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'")
    kind, _, rest = value.partition(b" ")
    return rest.strip() if kind.lower() == b"bearer" and rest else value.strip()

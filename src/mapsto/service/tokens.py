"""JSON Web Tokens (RFC 7519) instead of keys: who asks is what an identity provider has signed.

A token is accepted with a signature of one of `ALGORITHMS` by a key of the set, made for this service (``aud``) by that provider
(``iss``), in its time (``exp``, ``nbf``). ``sub`` names the caller, ``tenant`` whose versions and feedback are seen, ``scope`` what may be
done. What was verified is remembered by the token's digest until it ends: a signature costs 33 to 148 µs.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jwt

from mapsto.service.keys import SCOPES, Caller, is_name
from mapsto.service.refusal import Refusal
from mapsto.service.signing_keys import ALGORITHMS, SigningKeys

__all__ = ["Tokens"]

_MOST_BYTES = 8192
_MOST_KNOWN = 10_000
_REQUIRED = ["exp", "aud", "iss", "sub"]
_SAID: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "its time has not come"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is of another issuer"),
    (jwt.MissingRequiredClaimError, f"it lacks one of the claims {', '.join(_REQUIRED)}"),
    (jwt.InvalidAlgorithmError, "its algorithm is not accepted"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)
"""Why a token is refused; never what it holds."""


class Tokens:
    """What tells callers by their tokens.

    Parameters
    ----------
    audience, issuer
        Of the tokens that are for this service.
    leeway
        Seconds by which clocks may differ.
    """

    def __init__(self, keys: SigningKeys, *, audience: str, issuer: str, leeway: float = 30.0) -> None:
        self._keys, self._audience, self._issuer, self._leeway = keys, audience, issuer, leeway
        self._known: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._generation = keys.generation

    def name_of(self, token: bytes) -> str:
        """The name of whose token was verified before; empty for any other."""
        known = self._known.get(hashlib.sha256(token).digest())
        return known[0].name if known is not None and time.time() < known[1] else ""

    async def caller(self, token: bytes) -> Caller:
        """Whose a token is.

        Raises
        ------
        Refusal
            401: it does not hold; 503: whether it does cannot be told now.
        """
        if len(token) > _MOST_BYTES:
            raise Refusal(401, f"the token has more than {_MOST_BYTES} bytes")
        if self._generation != self._keys.generation:  # a key may have been taken back
            self._known.clear()
            self._generation = self._keys.generation
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None and time.time() < known[1]:
            return known[0]
        claims = await self._verified(token)
        caller = _caller(claims)
        self._known[digest] = (caller, float(claims["exp"]))
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return caller

    async def _verified(self, token: bytes) -> Mapping[str, Any]:
        try:
            head = jwt.get_unverified_header(token)
            if head.get("alg") not in ALGORITHMS:
                raise jwt.InvalidAlgorithmError
            key = await self._keys.find(head.get("kid"))
            return jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            said = next((text for kind, text in _SAID if isinstance(error, kind)), "it is no JSON Web Token")
            raise Refusal(401, f"the token is not accepted: {said}") from error


def _caller(claims: Mapping[str, Any]) -> Caller:
    tenant, subject, scope = claims.get("tenant"), claims["sub"], claims.get("scope", "")
    if not isinstance(tenant, str) or not is_name(tenant):
        raise Refusal(401, "the token is not accepted: its claim 'tenant' names none")
    if not subject or len(subject) > 200:
        raise Refusal(401, "the token is not accepted: its claim 'sub' names nobody")
    given = scope.split() if isinstance(scope, str) else scope if isinstance(scope, list) else []
    return Caller(
        f"token:{tenant}/{subject}",
        tenant,
        frozenset(SCOPES).intersection(each for each in given if isinstance(each, str)),
    )

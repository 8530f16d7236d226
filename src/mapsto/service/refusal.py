"""What the service answers where it does not do what was asked: a status of HTTP and one sentence, in the protocol's own form."""

from __future__ import annotations

import msgspec

__all__ = ["REASON", "Refusal", "error_body"]

REASON = "mapsto.reason"
"""Where the reason of a refusal stands in the scope of its request."""


class Refusal(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status
        Of HTTP, 400 to 599.
    text
        What is wrong, what was given, what is allowed.
    retry_after
        Seconds after which it may be asked again.
    reason
        What metrics count it as, where the status does not tell.
    """

    def __init__(self, status: int, text: str, *, retry_after: float | None = None, reason: str = "") -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after, self.reason = status, text, retry_after, reason

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What goes with it besides its body."""
        found = [] if self.retry_after is None else [(b"retry-after", b"%d" % max(1, round(self.retry_after + 0.5)))]
        if self.status == 405:  # of the routes in front, which are asked for by POST alone
            found.append((b"allow", b"POST"))
        return [*found, (b"www-authenticate", b"Bearer")] if self.status == 401 else found


def error_body(text: str) -> bytes:
    """The error object of the Open Inference Protocol.

    >>> error_body("no such model").decode()
    '{"error":"no such model"}'
    """
    return msgspec.json.encode({"error": text})

"""What a page cannot show, and with which status that is answered."""

from __future__ import annotations

from mapsto.errors import DataError, MapstoError

__all__ = ["Forbidden", "NotThere", "SignedOut", "status_of"]


class NotThere(DataError):
    """There is no such folder, run, point or file among those that the studio shows."""


class Forbidden(MapstoError):
    """A form that did not come from a page of the studio, or somebody who may not do this."""


class SignedOut(Forbidden):
    """Nobody has said who he is."""


def status_of(error: MapstoError) -> int:
    """The status of HTTP that an error is answered with.

    >>> status_of(NotThere("no such run")), status_of(DataError("not a whole report"))
    (404, 422)
    """
    from mapsto.service.client import ServiceError

    if isinstance(error, NotThere):
        return 404
    if isinstance(error, Forbidden):
        return 403
    if isinstance(error, ServiceError):
        return error.status if error.status in (401, 403, 404, 429) else 502
    return 422

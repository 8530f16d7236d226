"""Names that a service answers to: a page elsewhere whose name was made to point here (DNS rebinding) reaches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

__all__ = ["LOOPBACK", "Hosts", "is_model_name"]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANY = ("", "0.0.0.0", "::")  # compared, not listened on
_MOST_SEEN = 64


class Hosts:
    """Names that are allowed in a request's ``Host``.

    Parameters
    ----------
    address
        That is listened on. Where it is every address of the machine, any address may be asked for by its number: no name points to a
        number elsewhere.
    names
        More names; ``*`` is any.

    >>> own = Hosts("127.0.0.1", ["mapsto.example"])
    >>> [own.knows(name) for name in (b"localhost:8080", b"[::1]:80", b"Mapsto.Example", b"10.0.0.1", b"evil.example")]
    [True, True, True, False, False]
    >>> [Hosts("0.0.0.0").knows(name) for name in (b"10.0.0.1:80", b"[fe80::1]", b"evil.example")]
    [True, True, False]
    """

    def __init__(self, address: str, names: Iterable[str] = ()) -> None:
        self._names = {_lower(name) for name in (*LOOPBACK, address, *names)}
        self._any = "*" in self._names
        self._numbers = address in _ANY
        self._seen: set[bytes] = set()
        """As they were sent, so that most requests cost one look."""

    def allow(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request with these headers is for this service."""
        named = [value for name, value in headers if name == b"host"]
        # a browser always names one
        return len(named) < 2 and all(value in self._seen or self.knows(value) for value in named)

    def knows(self, host: bytes) -> bool:
        """Whether a value of ``Host``, with or without a port, is one of the names."""
        text = _lower(host.decode("latin-1"))
        name = text.rpartition(":")[0] if ":" in text.rpartition("]")[2] else text
        name = name.strip("[]")
        known = self._any or name in self._names or (self._numbers and _is_number(name))
        if known and len(self._seen) < _MOST_SEEN:
            self._seen.add(host)
        return known


def _lower(name: str) -> str:
    return name.strip().lower().rstrip(".")


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_model_name(name: str) -> bool:
    """Whether a model may be called so: it stands in paths as it is.

    >>> is_model_name("demo-2.1"), is_model_name("a/b"), is_model_name("")
    (True, False, False)
    """
    return _MODEL_NAME.fullmatch(name) is not None

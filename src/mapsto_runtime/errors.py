"""Every error that mapsto raises on purpose.

    MapstoError
    ├── SpecError       a recipe, a field or a command line that cannot be right
    │   └── ComposeError    two mappings whose kinds do not fit
    ├── DomainError     a value outside what a mapping is defined for (a budget, a shape, a class)
    ├── DataError       data that is missing, broken, empty or unfit
    ├── StepError       a step of a run that failed; always raised from its cause
    ├── StoreError      the store: damaged, full, locked, of a later version
    ├── TrustError      code or a file that mapsto refuses to execute or unpickle
    └── MissingExtra    an optional dependency that is not installed

A message says what is wrong, where, what was given, what is allowed, and what to do next. The command line prints it without
a traceback and exits with `exit_code`: 2 for the user's input or surroundings, 1 for a failure of mapsto itself.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from mapsto_runtime.shown import shown

__all__ = [
    "ComposeError",
    "DataError",
    "DomainError",
    "MapstoError",
    "MissingExtra",
    "SpecError",
    "StepError",
    "StoreError",
    "TrustError",
    "command",
    "is_of_surroundings",
    "nearest",
]

_NAMES = "EACCES EPERM EROFS ENOSPC EDQUOT ENOTDIR EISDIR ENAMETOOLONG ELOOP EMFILE ENFILE EIO ENOENT EEXIST"
_SURROUNDINGS = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))


class MapstoError(Exception):
    """The root of mapsto's errors.

    >>> str(MapstoError("no such file: a.png", where="data.train", hint="give a path that exists"))
    'data.train: no such file: a.png; give a path that exists'
    """

    exit_code: int = 2

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"; {self.hint}" if self.hint else ""
        return shown(f"{place}{self.what}{advice}")


class SpecError(MapstoError):
    """A recipe, a field or a command line that cannot be right.

    `details` holds each finding with its path in the configuration, where there are several or they lie deep.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: Sequence[tuple[tuple[str | int, ...], str]] = (),
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.details = tuple(details)


class ComposeError(SpecError):
    """Two mappings whose kinds do not fit."""


class DomainError(MapstoError):
    """A value outside what a mapping is defined for."""


class DataError(MapstoError):
    """Data that is missing, broken, empty or unfit."""


class StepError(MapstoError):
    """A step of a run that failed; `__cause__` is why. Exit code 1 unless the cause is the user's."""

    exit_code = 1


class StoreError(MapstoError):
    """The store is damaged, full, locked or of a later version."""


class TrustError(MapstoError):
    """Code or a file that mapsto refuses to execute or unpickle."""


class MissingExtra(MapstoError):
    """An optional dependency that is not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str, *, where: str | None = None, command: str | None = None) -> None:
        command = command or f"pip install 'mapsto[{extra}]'"
        super().__init__(f"{package} is not installed", where=where, hint=f"install it with: {command}")
        self.package = package
        self.extra = extra


def is_of_surroundings(error: OSError) -> bool:
    """Whether an `OSError` about a file comes from the user's surroundings (rights, a full disk) and not from mapsto.

    >>> is_of_surroundings(PermissionError(13, "Permission denied", "/etc/shadow"))
    True
    >>> is_of_surroundings(OSError(22, "Invalid argument"))
    False
    """
    return error.errno in _SURROUNDINGS and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT))


def command(text: str, *words: str, **values: object) -> str:
    """A command to type, as every message names one: values are put into it, words behind it, each quoted for a shell.

    `text` is written where the call is, and words in capitals are the reader's to replace: so a test finds every command that a
    message can name, and runs it.

    >>> command("mapsto adapt {examples} --target COLUMN", examples="my table.csv")
    "mapsto adapt 'my table.csv' --target COLUMN"
    """
    typed = text.format(**{name: shlex.quote(str(value)) for name, value in values.items()})
    return " ".join((typed, *map(shlex.quote, words)))


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy that names what is known, the nearest first.

    >>> nearest("talyor", ["magnitude", "taylor"])
    "did you mean 'taylor'?"
    >>> nearest("xyz", ["magnitude", "taylor"])
    'known: magnitude, taylor'
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else "none is known here"

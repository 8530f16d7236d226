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
a traceback and exits with `exit_code`: 2 for the user's input or environment, 1 for a failure of mapsto itself.
"""

from __future__ import annotations

import errno
import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from mapsto_runtime.shown import few, short, shown

__all__ = [
    "CARRIED",
    "ComposeError",
    "DataError",
    "DomainError",
    "MapstoError",
    "MissingExtra",
    "SpecError",
    "StepError",
    "StoreError",
    "TrustError",
    "carrying",
    "command",
    "is_environment_error",
    "nearest",
    "trouble",
]

_OF_WRITING: Final = {
    "ENOSPC": ("the disk is full", "free some space"),
    "EDQUOT": ("your quota on this disk is used up", "delete files of yours there, or ask for more"),
    "EFBIG": ("the file would be larger than files may be here", "raise the limit (`ulimit -f unlimited`)"),
    "EROFS": ("Read-only file system", "mount it so that it can be written"),
    "EIO": ("the disk or the network drive fails (input/output error)", "check it"),
}
"""Errors that come while a file is written, where no path may be named: what is wrong, and what to do."""
_NAMES = f"{' '.join(_OF_WRITING)} EACCES EPERM ENOTDIR EISDIR ENAMETOOLONG ELOOP EMFILE ENFILE ENOENT EEXIST"


def _numbers(names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names.split() if hasattr(errno, name))


_SURROUNDINGS = _numbers(_NAMES)
_WITHOUT_PATH = _numbers(" ".join(_OF_WRITING))
_CUT_SHORT = "requested and"
"""How NumPy says, without a number, that an array could not be written whole."""


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


def is_environment_error(error: OSError) -> bool:
    """Whether an `OSError` about a file comes from the user's environment (rights, a full disk) and not from mapsto.

    >>> is_environment_error(PermissionError(13, "Permission denied", "/etc/shadow"))
    True
    >>> is_environment_error(OSError(22, "Invalid argument"))
    False
    """
    if error.errno is None:
        return _CUT_SHORT in str(error)
    return error.errno in _SURROUNDINGS and (error.filename is not None or error.errno in _WITHOUT_PATH)


def trouble(error: OSError) -> tuple[str, str]:
    """What is wrong with a place that is written to or read, and what to do about it.

    >>> trouble(OSError(errno.EROFS, "Read-only file system", "runs"))
    ('Read-only file system', 'mount it so that it can be written')
    >>> trouble(PermissionError(errno.EACCES, "Permission denied", "runs"))
    ('Permission denied', 'check the path and the permissions')
    """
    if error.errno is None and _CUT_SHORT in str(error):
        return (
            "the disk is full, or a file may not be as large here",
            "free some space, or raise the limit (`ulimit -f`)",
        )
    known = _OF_WRITING.get(errno.errorcode.get(error.errno or 0, ""))
    return known or (error.strerror or str(error), "check the path and the permissions")


CARRIED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "--store": ("run", "stream", "adapt", "advise", "compress", "search", "evaluate", "studio", "store", "doctor"),
        "--trust": ("run", "adapt", "compress", "search", "evaluate"),
    }
)
"""Options without which another command may not find what this one worked on, or may not run it → the commands that take them."""

_carried: ContextVar[Mapping[str, Sequence[str]]] = ContextVar("carried", default=MappingProxyType({}))


@contextmanager
def carrying(options: Mapping[str, Sequence[str]]) -> Generator[None]:
    """Within the block the commands that messages name have these options of `CARRIED`, as the command that is running was given them.

    >>> with carrying({"--store": ["my store"]}):
    ...     command("mapsto store gc"), command("mapsto list"), command("mapsto store gc --store {store}", store="other")
    ("mapsto store gc --store 'my store'", 'mapsto list', 'mapsto store gc --store other')
    """
    token = _carried.set({**_carried.get(), **options})
    try:
        yield
    finally:
        _carried.reset(token)


def command(text: str, *words: str, **values: object) -> str:
    """A command to type, as every message names one: values are put into it, words behind it, each quoted for a shell.

    `text` is written where the call is, and words in capitals are the reader's to replace: so a test finds every command that a
    message can name, and runs it. Options that this command was given and that one needs too are added (see `carrying`).

    >>> command("mapsto adapt {examples} --target COLUMN", examples="my table.csv")
    "mapsto adapt 'my table.csv' --target COLUMN"
    """
    typed = text.format(**{name: shlex.quote(str(value)) for name, value in values.items()})
    named = {*text.split(), *words}
    carried = [
        word
        for option, given in _carried.get().items()
        if option not in named and text.split()[1] in CARRIED[option]
        for value in given
        for word in (option, value)
    ]
    return " ".join((typed, *map(shlex.quote, (*words, *carried))))


def nearest(name: str, known: Iterable[str], *, most: int | None = None) -> str:
    """A remedy that names what is known, the nearest first; of many names the first `most`.

    >>> nearest("talyor", ["magnitude", "taylor"])
    "did you mean 'taylor'?"
    >>> nearest("xyz", ["magnitude", "taylor"])
    'known: magnitude, taylor'
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean '{short(close[0])}'?"
    return f"known: {few(names, most or len(names))}" if names else "none is known here"

"""The state of a service, as the commands that look after it open it: by the package that is served, or by its place."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mapsto.errors import MissingExtra, SpecError

if TYPE_CHECKING:
    from mapsto.service.state import State

__all__ = ["PackageArgument", "StateOption", "opened_state", "place_of"]

PackageArgument = Annotated[
    str | None, typer.Argument(help="The first package that is served, or the --out folder of the run that made it.")
]
StateOption = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="The state of the service, as it is given to the service: a file, or postgresql://USER@HOST/NAME.",
        metavar="PLACE",
    ),
]


def place_of(package: str | None, state: str | None, *, where: str) -> str:
    """Where the state of a service is: a file, or ``postgresql://…``. Raises `SpecError` where neither or both are given."""
    try:
        import_module("msgspec")
    except ImportError as error:
        raise MissingExtra("msgspec", "serve", where=where) from error
    from mapsto.service.state import default_state
    from mapsto_runtime.answer_rows import package_folder

    if (package is None) == (state is None):
        raise SpecError(
            "needs the package that is served, or --state" if state is None else "takes a package or --state, not both",
            where=where,
            hint="give the package's folder, or that of its run, or --state and the place that the service was given",
        )
    if package is not None:
        folder = package_folder(Path(package))
        if not (folder / "manifest.json").is_file():
            raise SpecError("holds no package", where=package, hint="give a package's folder, or that of its run")
        return str(default_state(folder))
    return str(state)


@contextmanager
def opened_state(package: str | None, state: str | None, *, where: str, new: bool = False) -> Generator[State]:
    """The state of a service; it is made where `new` says so."""
    url = place_of(package, state, where=where)
    from mapsto.service.state import State

    if not new and "://" not in url and not Path(url).is_file():
        raise SpecError(
            "there is no state of a service yet",
            where=url,
            hint="it is made when the package is served, or with its first key",
        )
    held = State(url)
    try:
        yield held
    finally:
        held.close()

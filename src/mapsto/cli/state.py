"""``mapsto state``: copies of what a service must not lose."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text
from mapsto.cli.service_state import PackageArgument, StateOption, place_of
from mapsto.errors import SpecError

state_app = typer.Typer(help="Back up and restore the state of a service.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(state_app, name="state")


@state_app.command("backup")
def state_backup(
    out: Annotated[Path, typer.Option(help="The file to write.")],
    package: PackageArgument = None,
    state: StateOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy labels, versions and keys into one file, while the service runs. Of SQLite; PostgreSQL has pg_dump.

    Example: mapsto state backup runs/demo --out monday.sqlite
    """
    place = _file(package, state, where="mapsto state backup")
    from mapsto.service.backup import back_up

    if not place.is_file():
        raise SpecError(
            "there is no state of a service yet", where=str(place), hint="it is made when the package is served"
        )
    found = back_up(place, out, force=force)
    if as_json:
        print_json({"out": str(out), **asdict(found)})
        return
    print_text(f"{out}: {found.labels} labels, {found.versions} versions, {found.keys} keys")


@state_app.command("restore")
def state_restore(
    backup: Annotated[Path, typer.Option("--from", help="A file that a backup made.")],
    package: PackageArgument = None,
    state: StateOption = None,
    force: Annotated[bool, typer.Option("--force", help="Move a state that is there aside.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a copy at the place of the state, while no service runs there.

    Example: mapsto state restore runs/demo --from sunday.sqlite --force
    """
    place = _file(package, state, where="mapsto state restore")
    from mapsto.service.backup import replaced, restore

    was_there = place.exists()
    found = restore(backup, place, force=force)
    if as_json:
        print_json({"state": str(place), **asdict(found)})
        return
    print_text(f"{place}: {found.labels} labels, {found.versions} versions, {found.keys} keys")
    if was_there:
        print_note(f"the state that was there is {replaced(place)}")


def _file(package: str | None, state: str | None, *, where: str) -> Path:
    place = place_of(package, state, where=where)
    if "://" in place:
        raise SpecError(
            "is a database, which has tools of its own",
            where=place.rpartition("@")[2],
            hint="use pg_dump and pg_restore",
        )
    return Path(place)

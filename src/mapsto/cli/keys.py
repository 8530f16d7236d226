"""``mapsto keys``: who may call a service, and for how long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mapsto.service.state import State
from mapsto.cli.ages import days_of
from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text
from mapsto.cli.service_state import PackageArgument, StateOption, opened_state
from mapsto.errors import SpecError

keys_app = typer.Typer(
    help="Make, list, rotate and end the keys of a service.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(keys_app, name="keys")
_MOST_DAYS = 1e6


@keys_app.command("make")
def keys_make(
    package: PackageArgument = None,
    state: StateOption = None,
    name: Annotated[
        str | None, typer.Option(help="What it is called in logs and lists; by default one is drawn.")
    ] = None,
    tenant: Annotated[
        str, typer.Option(help="Whose it is: tenants do not see each other's versions and feedback.")
    ] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it may: predict, adapt, learn, metrics, admin; give several. By default the first three."
        ),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(help="Days for which it is valid, above 0; parts of one too. By default no end."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second that it may make, above 0; by default no limit.")
    ] = None,
    burst: Annotated[
        float | None,
        typer.Option(help="Requests that it may make at once, at least 1, with --rate; by default those of a second."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once; only its digest is stored.

    Example: mapsto keys make runs/demo --name kitchen --scope predict --days 90
    """
    if days is not None and not 0 < days < _MOST_DAYS:
        raise SpecError(f"{days:g} is no number of days", where="--days", hint="give one above 0, or leave it out")
    with opened_state(package, state, where="mapsto keys", new=True) as held:
        from mapsto.service.keys import ORDINARY, made

        scopes = scope or list(ORDINARY)
        id_, key = made(held, name=name, tenant=tenant, scopes=scopes, days=days, rate=rate, burst=burst)
        _show(held, id_, key, as_json)


@keys_app.command("list")
def keys_list(package: PackageArgument = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the keys: whose they are, what they may, until when. The keys themselves are not stored.

    Example: mapsto keys list runs/demo
    """
    with opened_state(package, state, where="mapsto keys") as held:
        rows = [_plain(row) for row in held.all_keys()]
    if as_json:
        print_json(rows)
        return
    from mapsto.cli.progress import print_keys

    print_keys(rows)


@keys_app.command("rotate")
def keys_rotate(
    name: Annotated[str, typer.Option(help="The key that gets a successor.")],
    package: PackageArgument = None,
    state: StateOption = None,
    grace: Annotated[
        str, typer.Option(metavar="AGE", help="How long the old key stays valid: 15m, 12h, 7d; 0 ends it at once.")
    ] = "1d",
    as_json: JsonOption = False,
) -> None:
    """Make a new key with the same name, tenant, scopes and limits; the old one ends after the grace period.

    Example: mapsto keys rotate runs/demo --name phone --grace 7d
    """
    days = days_of(grace, where="--grace")
    with opened_state(package, state, where="mapsto keys") as held:
        from mapsto.service.keys import rotated

        key = rotated(held, name, grace_days=days)
        _show(held, name, key, as_json)
        if not as_json:
            print_note(f"the old key ends {'now' if not days else _time(time.time() + days * 86_400)}")


@keys_app.command("end")
def keys_end(
    name: Annotated[str, typer.Option(help="The key that shall open nothing any more.")],
    package: PackageArgument = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a key at once. A service that runs knows of it within a second.

    Example: mapsto keys end runs/demo --name phone
    """
    with opened_state(package, state, where="mapsto keys") as held:
        from mapsto.service.keys import ended

        ended(held, name)
    print_json({"ended": name}) if as_json else print_text(f"key '{name}' has ended")


def _show(state: State, name: str, key: str, as_json: bool) -> None:
    """A new key, on standard output alone, and what it opens."""
    row = _plain(next(row for row in reversed(state.all_keys()) if row["id"] == name))
    if as_json:
        print_json({**row, "key": key})
        return
    print_text(key)
    until = f", until {_time(row['ends'])}" if row["ends"] is not None else ""
    print_note(
        f"key '{name}' of tenant '{row['tenant']}' may {', '.join(row['scopes'])}{until}; it is shown only this once"
    )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A key as it is shown: times in seconds of the epoch, `ends` null where it has no end."""
    ends = [row[name] for name in ("expires", "revoked") if row[name] is not None]
    return {
        "name": row["id"],
        "tenant": row["tenant"],
        "scopes": str(row["scopes"]).split(),
        "created": row["created"],
        "ends": min(ends, default=None),
        "valid": min(ends, default=float("inf")) > time.time(),
        "rate": row["rate"],
        "burst": row["burst"],
    }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))

"""``mapsto lock``: what decides results, compared with the lock or written anew."""

from __future__ import annotations

from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_text


@app.command()
def lock(
    reason: Annotated[str, typer.Option(help="Why code changes without a new version; it is kept.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only compare.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare or rewrite the lock of a checkout: a hash of all code that decides a result.

    Example: mapsto lock --reason "renamed a private helper"
    """
    from mapsto.testing.lock import check_lock, write_lock

    changed = check_lock() if check else write_lock(reason)
    print_json({"changed": changed}) if as_json else print_text("\n".join(changed) or "nothing has changed")
    if check and changed:
        raise typer.Exit(2)

"""``mapsto store``: what finished steps take, what is damaged, what can go."""

from __future__ import annotations

from typing import Annotated

import typer

from mapsto.cli.ages import days_of
from mapsto.cli.app import JsonOption, StoreOption, print_json, print_text, store_app


@store_app.command("ls")
def store_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List finished steps with time and size.

    Example: mapsto store ls
    """
    from mapsto.cli import progress
    from mapsto.store import Store

    rows = Store(store).ls()
    print_json(rows) if as_json else progress.print_store(rows)


@store_app.command("gc")
def store_gc(
    store: StoreOption = None,
    keep_days: Annotated[float, typer.Option(min=0, help="Also drop steps older than this; 0 keeps all.")] = 0,
    checkpoints_older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Drop checkpoints of unfinished steps that nobody went on from: 30d, 12h."),
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what no step refers to, and checkpoints of runs that were given up. What a run is using stays.

    Example: mapsto store gc --keep-days 30
    """
    from mapsto.store import Store

    freed = Store(store).gc(
        keep_days=keep_days,
        checkpoint_days=days_of(checkpoints_older_than, where="--checkpoints-older-than"),
        dry_run=dry_run,
    )
    verb = "would remove" if dry_run else "removed"
    print_json(freed) if as_json else print_text(f"{verb} {freed['files']} files, {freed['bytes'] / 2**20:.1f} MiB")


@store_app.command("verify")
def store_verify(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check every artifact against its digest; exit code 2 where one is damaged.

    Example: mapsto store verify
    """
    import dataclasses

    from mapsto.store import Store

    opened = Store(store)
    findings = opened.verify()
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    for finding in findings if not as_json else []:
        users = f" (used by {', '.join(finding.used_by)})" if finding.used_by else ""
        print_text(f"{finding.path}: {finding.what}{users}")
    if findings:
        raise typer.Exit(2)
    if not as_json:
        count = len(opened.listed("artifacts"))
        place = opened.url or opened.root
        print_text(
            f"every artifact matches its digest ({count} of them)"
            if count
            else f"{place} holds no artifact, so there was nothing to check; is that the store you mean?"
        )


@store_app.command("index")
def store_index(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Make the index database again from the store.

    Example: mapsto store index
    """
    from mapsto.store import Store
    from mapsto.store.index import Index

    count = Index(Store(store)).rebuild()
    print_json({"runs": count}) if as_json else print_text(f"indexed {count} runs")

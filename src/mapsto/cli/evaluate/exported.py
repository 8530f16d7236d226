"""A package of a run that made none: its last network, or what it learnt from a stream, exported to be judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mapsto.errors import DataError, DomainError, StoreError, command

__all__ = ["package_of_run"]


def package_of_run(place: Path, store: str | None) -> tuple[Path, str]:
    """The folder of a new package, which lasts until this process ends, and a sentence on what it holds.

    Raises
    ------
    DataError
        The path is no run's, or the run made neither a network nor a model.
    StoreError
        The store does not hold it any more.
    """
    from mapsto import discovery
    from mapsto.context import SilentContext
    from mapsto.kinds import Model
    from mapsto.report.build import save_package
    from mapsto.store import Store

    kept, ctx = Store(store), SilentContext()
    digest, title = _last_of(place, kept)
    try:
        value = kept.load(digest)
    except StoreError as error:
        raise StoreError(
            f"the run made no package, and the store {kept.root} does not hold its networks ({error.what})",
            where=str(place),
            hint="name the run's store with --store, or end its recipe with export.onnx and run it again",
        ) from error
    try:
        package: Any = ctx.apply(discovery.find("mappings", "export.onnx")(), value)
    except DomainError:
        if not isinstance(value, Model):
            raise
        package = ctx.apply(discovery.find("mappings", "export.mapsto")(), value)
    folder = ctx.scratch() / "package"
    save_package(package, folder)
    return folder, f"{place}: the run made no package; {title} was exported to be judged"


def _last_of(place: Path, store: Any) -> tuple[str, str]:
    """The digest of a run's last network or model, and what it is called."""
    from mapsto.report import build as reports
    from mapsto.report.steps_taken import steps_taken

    if (place / "stream.json").is_file():
        from mapsto.cli.stream.models import snapshots

        last = snapshots(str(place), store)[-1]
        return last.digest, f"what it had learnt after {last.events:,} events, which takes the rows here for no stream,"
    if not (place / "report.json").is_file():
        what = "no package is here" if place.exists() else "there is no such run or package"
        raise DataError(what, where=str(place), hint="give a package, or the --out folder of a run that made one")
    steps = cast("list[dict[str, Any]]", reports.load(place)["steps"])
    made = [step for step in steps_taken(steps) if step["kind_out"] in ("Network", "Model") and not step.get("failed")]
    if not made:
        raise DataError(
            "this run made no package and no network",
            where=str(place),
            hint=f"see what it made with `{command('mapsto report {folder}', folder=place)}`",
        )
    return str(made[-1]["digest"]), f"its last network, of {made[-1]['path']},"

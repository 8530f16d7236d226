"""``mapsto report``: a run's page again, or two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, app, print_json
from mapsto.errors import SpecError


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One --out folder to show, or two to compare.")],
    as_json: JsonOption = False,
) -> None:
    """Show a run's report, or two side by side.

    Example: mapsto report runs/demo runs/short
    """
    from mapsto.cli import progress
    from mapsto.report import build as reports

    if len(runs) > 2:
        raise SpecError(f"{len(runs)} runs given; one is shown, two are compared", where="mapsto report")
    loaded = [reports.load(path) for path in runs]
    with reports.reading(*runs):
        if as_json:
            print_json(loaded[0] if len(loaded) == 1 else reports.compare(*loaded))
        elif len(loaded) == 1:
            progress.print_outcome(loaded[0], runs[0])
        else:
            progress.print_comparison(reports.compare(*loaded), [str(path) for path in runs])

"""``mapsto evaluate``: the card of a package, as a page, as Markdown and as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, StoreOption, TrustOption, app, print_json, print_note
from mapsto.cli.run import writable
from mapsto.errors import SpecError, command

_MOST_DATA = 50


@app.command()
def evaluate(
    packages: Annotated[
        list[Path],
        typer.Argument(
            metavar="PACKAGE...",
            help="A package's folder, or the --out folder of a run that made one. Several are compared; several runs of one recipe "
            "with different seeds give the spread over seeds.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled samples that the package was not made with: a folder with a folder of images for each class, a table, "
            "an .npz archive, or a data set as in a recipe; NAME=PATH gives them a name. Given several times, each is a domain of the "
            "transfer matrix.",
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="The column of a table that is predicted; by default the one the package knows.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which part of a folder of splits is judged. [default: test, else validation]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for card.html, card.md and card.json. [default: the run's, beside its package]"),
    ] = None,
    speed: Annotated[bool, typer.Option(help="Measure speed and memory, in a process of its own.")] = True,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Explain a few answers to each domain, wrong and right: which words, columns or places of an image they rest on; up to "
            "256 forward passes each.",
        ),
    ] = False,
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a package is worth, on one page: accuracy, calibration, transfer, speed, size and what it cost.

    Example: mapsto evaluate runs/demo --data digits

    Example: mapsto evaluate runs/demo --data clean=digits --data scans=scans

    Example: mapsto evaluate runs/demo --data digits --explain
    """
    from mapsto import kinds
    from mapsto.cli.evaluate import subjects as of_packages
    from mapsto.cli.evaluate.card import card_of
    from mapsto.cli.evaluate.display import print_card
    from mapsto.cli.evaluate.examples import domains_of
    from mapsto.report import card as cards

    if not data:
        raise SpecError(
            "no data are given",
            where="mapsto evaluate",
            hint=f"as in `{command('mapsto evaluate {model} --data FOLDER', model=packages[0])}`",
        )
    if len(data) > _MOST_DATA:
        raise SpecError(f"{len(data)} data are given", where="--data", hint=f"give at most {_MOST_DATA}")
    with kinds.trusting(*(trust or [])):
        subjects = of_packages.found(packages, store)
    of_packages.require_one_kind(subjects)
    domains = domains_of(data)
    folder = out or subjects[0].run
    writable(folder)
    began = time.monotonic()
    with _watching(enabled=not as_json) as watch:
        card = card_of(subjects, domains, target=target, split=split, timed=speed, watch=watch, explain=explain)
    card["wall_s"] = round(time.monotonic() - began, 2)
    cards.save(card, folder)
    if as_json:
        print_json(card)
        return
    for text in card["notes"]:
        print_note(text)
    print_card(card, folder)


@contextmanager
def _watching(*, enabled: bool) -> Generator[Callable[[str, int | None, int], None]]:
    """Within the block what tells of progress: (what is read, how many there are or None, how many more were read)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from mapsto.cli.progress import Screen

    console = Screen(stderr=True, highlight=False)
    columns = (
        *(TextColumn("  {task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn()),
    )
    tasks: dict[str, TaskID] = {}
    with Bars(*columns, console=console, transient=True, disable=not enabled or not console.is_terminal) as bars:

        def watch(title: str, total: int | None, more: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title.replace("[", r"\["), total=total)
            bars.update(tasks[title], advance=more)

        yield watch

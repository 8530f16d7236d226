"""``mapsto advise``: which recipes to try on data, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapsto.cli.advised_trials import size_text, tried
from mapsto.cli.app import JsonOption, StoreOption, app, print_json, print_note, print_text
from mapsto.errors import SpecError, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mapsto.search.advisor.advice import Advice, Asked
    from mapsto.search.advisor.runs import Runs, Task
    from mapsto.store import Store

__all__: list[str] = []


@app.command()
def advise(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="A folder with a folder of images for each class, a table or a table of texts (with --target), a stream's file (with "
            "--stream), a data set as in a recipe, or a recipe with data called examples. Or: learn RUN..., from the --out folders of "
            "finished runs or others' lists of runs; export FILE; merge FILE FILE --out FILE.",
        ),
    ],
    target: Annotated[str | None, typer.Option(help="The column of a table or a stream that is predicted.")] = None,
    text: Annotated[str | None, typer.Option(help="The column of a table that holds texts.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="The table's rows are events, answered one after the other.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Of images: the network to keep to, such as glyph_conv4.")] = None,
    limit: Annotated[str | None, typer.Option(help="The model's size at most, as bytes=200kB.")] = None,
    count: Annotated[int, typer.Option("--n", min=1, help="How many recipes.")] = 5,
    prior: Annotated[
        list[Path] | None,
        typer.Option(help="A list of runs to lean on, besides the own ones and mapsto's; may be repeated."),
    ] = None,
    only_prior: Annotated[bool, typer.Option("--only-prior", help="Lean on the --prior lists alone.")] = False,
    name: Annotated[str, typer.Option(help="What the task is called in the list of runs, with learn.")] = "",
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="Of images: train the network of characters first, where the store has none, and ask it too.",
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Try what is advised until so many runs on these data are known, each chosen by those before it.",
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="With --trials: none begins after so many.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --trials: threads of torch. [default: all cores]")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say of each recipe on which runs it leans.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the first recipe goes, or with merge the list; with --trials a folder. [default: advised.yaml, or runs/advised]"
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose recipes for data by what they came to on other tasks: how accurate, how surely, and on which runs that leans.

    Nothing is trained for it: frozen networks are asked, and simple rules. Only numbers that describe a task are kept, never its samples.

    Example: mapsto advise photos --n 3

    Example: mapsto advise table.csv --target column --limit bytes=20kB --explain

    Example: mapsto advise table.csv --target column --trials 3 --out runs/tried

    Example: mapsto advise learn theirs.json

    Example: mapsto advise export runs.json

    Example: mapsto advise merge ours.json theirs.json --out all.json
    """
    from mapsto.search.advisor import runs as lists
    from mapsto.search.advisor.advice import advice
    from mapsto.search.advisor.question import goal_of, question_of
    from mapsto.store import Store

    place = Store(store)
    first, rest = words[0], words[1:]
    if first in _VERBS and not Path(first).exists():
        done = _VERBS[first](rest, place, out, name)
        said = done.pop("said")
        print_json(done) if as_json else print_text(said)
        return
    if rest:
        raise SpecError(
            f"one set of data is asked on, and {len(words)} are given", where="mapsto advise", hint="give one"
        )
    given = [lists.load(path) for path in prior or []]
    if only_prior and not given:
        raise SpecError("--only-prior without a --prior", where="mapsto advise", hint="give --prior FILE")
    known = lists.merged(given if only_prior else [_own(place), *given, lists.shipped()])
    question, goal = question_of(first, target, text, stream=stream), goal_of(limit)
    if trials is not None:
        others = given if only_prior else [*given, lists.shipped()]
        task, missing = _described(question, place, thorough=thorough)
        told = tried(
            question, task, others, place,
            goal=goal, model=model, missing=missing, trials=trials, minutes=minutes, threads=threads,
            folder=out or Path("runs/advised"), quiet=as_json,
        )  # fmt: skip
        if as_json:
            print_json(told)
        return
    if minutes is not None or threads is not None:
        raise SpecError("--minutes and --threads are of --trials", where="mapsto advise", hint="give --trials N too")
    task, missing = _described(question, place, thorough=thorough)
    advised = advice(question, task, known, goal=goal, count=count, model=model, missing=missing)
    file = out or Path("advised.yaml")
    _write(file, advised.recipe())
    if as_json:
        from mapsto.search.advisor.advice import tree_of

        print_json(tree_of(advised) | {"recipe": str(file), "command": _run(file)})
        return
    _print(advised, file, explain=explain)


def _described(question: Asked, place: Store, *, thorough: bool) -> tuple[Task, Mapping[str, str]]:
    """The task and its features, and the networks that could not be asked; says which."""
    from mapsto.search.advisor.advice import described
    from mapsto.search.advisor.features import NOT_TRAINED

    task, missing = described(question, store=place, train=thorough)
    for network, why in missing.items():
        doing = "is not asked" if why == NOT_TRAINED else "is left out"
        print_note(f"{network} {doing}: {why}{'; --thorough trains it' if why == NOT_TRAINED else ''}")
    return task, missing


def _own(place: Store) -> Runs:
    from mapsto.search.advisor.advice import known_runs

    return known_runs(place)


def _write(file: Path, text: str) -> None:
    from mapsto.atomic import new_file

    file.parent.mkdir(parents=True, exist_ok=True)
    with new_file(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _run(file: Path) -> str:
    return command("mapsto run {recipe}", recipe=file)


def _print(advised: Advice, file: Path, *, explain: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", ", ".join(advised.proposals[0].holes), "accuracy", "90 %", "size", "better")
    for number, each in enumerate(advised.proposals, 1):
        interval = f"{each.low:.0f} to {each.high:.0f}"
        recipe = ", ".join(each.holes.values())
        table.add_row(
            *(
                str(number),
                recipe,
                f"{each.accuracy:.1f} %",
                interval,
                size_text(each.bytes),
                f"{100 * each.surer:.0f} %",
            )
        )
    Console(highlight=False).print(table)
    own = f", and by {advised.trials} on these data" if advised.trials else ""
    print_text(f"ranked by {advised.goal.text}")
    print_text(
        f"by runs on {advised.known} other task{'' if advised.known == 1 else 's'}{own}; the nearest is {advised.nearest}"
    )
    print_text(
        f"better: how likely it is better than {', '.join(advised.default.values())}, the best recipe on the whole"
    )
    if advised.unlike:
        print_text(
            f"these data are unlike all of them (distance {advised.alike:.1f}, 1 is far): only what each recipe comes to on the whole, "
            "and how simple rules do on these data, is gone by"
        )
    if explain:
        from mapsto.search.advisor.runs import keys

        for number, each in enumerate(advised.proposals, 1):
            print_text(f"{number} leans on")
            for lean in each.leans:
                task = lean.task.name or lean.task.id
                print_text(f"  {100 * lean.weight:4.1f} %  {task}: {keys(advised.asked.kind)[lean.recipe]}")
    print_text(f"wrote {file}; run it: {_run(file)}")


# ------------------------------------------------------------------------------------------------------------------------- lists


def _learn(words: list[str], place: Store, out: Path | None, name: str) -> dict[str, Any]:
    """Add finished runs, or all of others' lists, to the own list."""
    from mapsto.search.advisor.advice import keep
    from mapsto.search.advisor.learning import learnt
    from mapsto.search.advisor.runs import load

    if not words:
        raise SpecError(
            "there is nothing to learn from", where="mapsto advise learn", hint="give the --out folder of a run"
        )
    lists = [load(Path(word)) for word in words if Path(word).is_file()]
    found = [learnt(Path(word), store=place, name=name) for word in words if not Path(word).is_file()]
    before = _own(place).count
    own = keep(place, lists, found)
    new = own.count - before
    return {"runs": own.count, "new": new, "said": f"{own.count} runs are known, {new} of them new"}


def _export(words: list[str], place: Store, out: Path | None, name: str) -> dict[str, Any]:
    """Write the own list to a file."""
    if len(words) != 1:
        raise SpecError(
            "one file is written",
            where="mapsto advise export",
            hint=f"as in `{command('mapsto advise export {file}', file='runs.json')}`",
        )
    own = _own(place)
    if not own.tasks:
        raise SpecError(
            "no run has been learnt from", where="mapsto advise export", hint="learn from finished runs first"
        )
    own.save(Path(words[0]))
    return {
        "runs": own.count,
        "said": f"wrote {own.count} runs on {len(own.tasks)} tasks to {words[0]}: features, no samples",
    }


def _merge(words: list[str], place: Store, out: Path | None, name: str) -> dict[str, Any]:
    """Make one list of several."""
    from mapsto.search.advisor.runs import load, merged

    if len(words) < 2 or out is None:
        raise SpecError(
            "two lists or more are merged into one",
            where="mapsto advise merge",
            hint="give two lists and --out",
        )
    lists = [load(Path(word)) for word in words]
    whole = merged(lists)
    whole.save(out)
    twice = sum(each.count for each in lists) - whole.count
    return {
        "runs": whole.count,
        "twice": twice,
        "said": f"wrote {whole.count} runs on {len(whole.tasks)} tasks to {out}; {twice} were in more than one list, and count once",
    }


_VERBS = {"learn": _learn, "export": _export, "merge": _merge}

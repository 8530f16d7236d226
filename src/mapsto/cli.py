"""The command line: ``mapsto run``, ``list``, ``show``, ``new``, ``predict``, ``report``, ``store``, ``bench``, ``doctor``, ``lock``.

Every command has ``--help`` with an example and ``--json`` for machines. Exit codes: 0 done, 2 the user's mistake or
surroundings, 1 our failure, 130 Ctrl-C.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from mapsto import discovery
from mapsto._version import __version__
from mapsto.errors import (
    DataError,
    DomainError,
    MapstoError,
    SpecError,
    StoreError,
    carrying,
    command,
    is_of_surroundings,
    nearest,
    trouble,
)
from mapsto_runtime.shown import short, shown

if TYPE_CHECKING:
    from mapsto.kinds import Package
    from mapsto.mapping import Context
    from mapsto.run import RunResult
    from mapsto.spec import Recipe
    from mapsto.store import Store
    from mapsto.store.index import Index
    from mapsto_runtime.predictor import Prediction, Predictor

__all__ = ["app", "main"]

app = typer.Typer(
    name="mapsto",
    help="Everything is a mapping: from a large pretrained model and a handful of labels to a small model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
store_app = typer.Typer(help="Look after the store of finished steps.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(store_app, name="store")


def _carried(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Let the commands that messages name while this one runs have the option too."""
    given = [value] if isinstance(value, str) else list(value or ())
    ctx.with_resource(carrying({param.opts[0]: given}))
    return value


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", help="The store's place: a folder or an fsspec URL. [default: $MAPSTO_STORE]", callback=_carried
    ),
]
TrustOption = Annotated[
    list[str] | None, typer.Option("--trust", help="Allow factories of this module.", callback=_carried)
]
_PATH = 4096
"""Letters of a path, or of what is shown whole."""
_MOST_LINES = 12
"""Classes that are listed one a line."""


class _Task(Enum):
    AUTO = "auto"
    CLASSES = "classes"
    VALUES = "values"


class _Weights(Enum):
    NONE = "none"
    BALANCED = "balanced"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> NoReturn:
    """The entry point: runs a command and turns errors into messages and exit codes."""
    # Threads that spin at OpenMP's barriers make two runs at once many times slower than one after the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        ended = app(prog_name="mapsto", standalone_mode=False)
        code = ended if isinstance(ended, int) else 0  # what `typer.Exit` was raised with; 130 for Ctrl-C
        if code == 130:
            raise KeyboardInterrupt
    except MapstoError as error:
        if os.environ.get("MAPSTO_DEBUG"):
            raise
        _fail(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here")
        code = 130
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise  # typer exits with 1 for a closed pipe, as of `mapsto list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _fail_of_usage(error)
            code = 2
        elif isinstance(error, OSError) and is_of_surroundings(error):
            what, remedy = trouble(error)
            place = f"{error.filename}: " if error.filename is not None else ""
            _fail(f"{place}{what}; {remedy}, then run the same command again")
            code = 2
        elif isinstance(error, ValueError) and "null byte" in str(error):
            _fail("a name holds a NUL byte, which no file can have; check the names that are given")
            code = 2
        elif isinstance(error, MemoryError):
            _fail(f"out of memory: {error or 'a value is too large for this machine'}")
            code = 2
        else:
            if os.environ.get("MAPSTO_DEBUG"):
                raise
            _fail(f"{type(error).__name__}: {error} (a fault of mapsto; MAPSTO_DEBUG=1 shows where, please report it)")
            code = 1
    sys.exit(code)


def _fail(text: str) -> None:
    sys.stderr.write(f"mapsto: error: {shown(text)}\n")


def _fail_of_usage(error: Any) -> None:
    """Say what click found wrong with the words of a command, the nearest option and where its help is."""
    text = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{text}\n")
        return
    text = text.rstrip(".")
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        options = [name for each in error.ctx.command.params for name in each.opts if name.startswith("--")]
        text = f"there is no option '{error.option_name}'; {nearest(error.option_name, options)}"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mapsto"
    missing = re.match("No such command '(.*?)'", text, re.DOTALL)
    if missing is not None and context is not None:
        text = f"there is no command '{missing[1]}'; {_meant(missing[1], context.command.commands, path)}"
    _fail(f"{text}; see {path} --help")


def _meant(word: str, commands: Iterable[str], path: str) -> str:
    """What was meant by a word in a command's place: a recipe to run, a mapping to look at, or the nearest command."""
    from mapsto.names import recipes

    if path == "mapsto" and (word in recipes() or Path(word).suffix in (".yaml", ".yml")):
        return f"did you mean `{command('mapsto run {recipe}', recipe=word)}`?"
    if path == "mapsto" and any(word in discovery.entries(group) for group in ("mappings", "data")):
        return f"did you mean `{command('mapsto show {name}', name=word)}`?"
    return nearest(word, commands)


def _note(text: str) -> None:
    sys.stderr.write(f"mapsto: {shown(text)}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{shown(text)}\n")


def _json(value: Any) -> None:
    _print(json.dumps(value, indent=2, ensure_ascii=False))


# ----------------------------------------------------------------------------------------------------------------------- run


def _settings(given: list[str]) -> dict[str, Any]:
    from mapsto.spec import read_yaml

    found: dict[str, Any] = {}
    for text in given:
        target, sign, value = text.partition("=")
        if not sign or not target:
            raise SpecError(f"'{text}' is not like label.field=value", where="--set")
        found[target.strip()] = read_yaml(value, where=f"--set {target}")[1]
    return found


def _seeds(text: str) -> list[int]:
    from mapsto.spec import LARGEST_SEED

    try:
        seeds = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > LARGEST_SEED or len(set(seeds)) != len(seeds):
        raise SpecError(f"'{text}' is not a list of different whole numbers such as 0,1,2", where="--seeds")
    return seeds


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="label.field=value, or name.field=value; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report, logs and package. [default: runs/NAME]")] = None,
    store: StoreOption = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:0, mps.")] = "cpu",
    precision: Annotated[str, typer.Option(help="Lightning Fabric's precision.")] = "32-true",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch. [default: all cores]")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share each step's work, one a device.")] = 1,
    strategy: Annotated[str, typer.Option(help="How they do: auto or ddp. [default: ddp]")] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="The seed. [default: the recipe's]")] = None,
    seeds: Annotated[str | None, typer.Option(help="Several seeds, as 0,1,2: mean ± CI95.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The recipe's quick settings: shows that all works.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, how long and how large; run nothing.")
    ] = False,
    force: Annotated[list[str] | None, typer.Option(help="Run this step (label or name) again.")] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: what is finished is not computed again.

    Example: mapsto run demo --set teacher.steps=100 --out runs/short
    """
    from mapsto import kinds, progress
    from mapsto.mapping import Numerics
    from mapsto.spec import load_recipe

    if seed is not None and seeds is not None:
        raise SpecError("--seed and --seeds exclude each other", where="mapsto run", hint="give one of them")
    loaded = load_recipe(recipe, settings=_settings(settings or []), quick=quick)
    chosen = _seeds(seeds) if seeds is not None else [loaded.seed if seed is None else seed]
    if processes > 1 and strategy == "auto":
        strategy = "ddp"
    policy = {"device": device, "precision": precision} | ({} if threads is None else {"threads": threads})
    numerics = Numerics(**policy, strategy=strategy, world_size=processes)  # type: ignore[arg-type]
    folder = out or Path("runs") / loaded.name
    listener = progress.Progress(enabled=not as_json)
    with kinds.trusting(*(trust or [])), listener:
        if plan:
            _plan(loaded, chosen, store, numerics, force or [], as_json)
            return
        options = _typed(
            {
                "--quick": quick,
                "--set": settings,
                "--out": out,
                "--store": store,
                "--device": device if device != "cpu" else None,
                "--precision": precision if precision != "32-true" else None,
                "--threads": threads,
                "--processes": processes if processes > 1 else None,
                "--seed": seed,
                "--seeds": seeds,
                "--trust": trust,
            }
        )
        report = _run_seeds(
            loaded, chosen, folder, store, numerics, force or [], listener, {"recipe": recipe, "options": options}
        )
    if report is None:
        return
    if as_json:
        _json(report)
    else:
        progress.print_outcome(report, folder)
    if any(target["met"] is False for target in report["targets"]) and not quick:
        sys.stderr.write("mapsto: some targets were not met; the table says which\n")


def _typed(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command: one pair for each value of a list; what is None or False is left out.

    >>> _typed({"--quick": True, "--seed": 0, "--trust": ["mine", "yours"], "--out": None})
    ['--quick', '--seed', '0', '--trust', 'mine', '--trust', 'yours']
    """
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        for each in cast("list[Any]", value) if isinstance(value, list) else [value]:
            words += [name] if each is True else [name, str(each)]
    return words


def _run_seeds(
    recipe: Recipe,
    seeds: list[int],
    folder: Path,
    store: str | None,
    numerics: Any,
    force: list[str],
    listener: Any,
    command: dict[str, Any],
) -> dict[str, Any] | None:
    """The report, saved with the command that it came from; None in a process that only computes along with the one that writes it."""
    from mapsto import report as reports
    from mapsto.kinds import Package
    from mapsto.run import execute
    from mapsto.spec import dump
    from mapsto.store import Store

    _writable(folder)
    place = Store(store)
    index = _index(place)
    built: list[dict[str, Any]] = []
    leads = True
    for seed in seeds:
        part = folder if len(seeds) == 1 else folder / f"seed-{seed}"
        result: RunResult = execute(
            recipe, store=place, seed=seed, numerics=numerics, force=force, listener=listener, logs=part / "logs"
        )
        leads = leads and result.leads
        if not leads:
            continue
        _indexed(index, result, listener)
        value = result.value() if result.result.kind == "Package" else None
        report = reports.build(result) | {"command": command}
        reports.save(report, part, recipe_yaml=dump(recipe), package=value if isinstance(value, Package) else None)
        built.append(report)
    if not leads:
        return None
    if len(built) == 1:
        return built[0]
    combined = reports.combine(built)
    reports.save(combined, folder, recipe_yaml=dump(recipe))
    return combined


def _index(store: Store) -> Index | None:
    """The store's database; None where it cannot be opened as nothing can be written to the store, which may hold all there is."""
    from mapsto.store.index import Index

    try:
        return Index(store)
    except StoreError:
        if store.writable:
            raise
        return None


def _indexed(index: Index | None, result: RunResult, listener: Any) -> None:
    from mapsto.run import summary_of

    try:
        if index is not None:
            index.add(summary_of(result))
    except StoreError as error:
        if not result.reused or result.store.writable:
            raise
        listener.note(f"the index does not know of this run: {error.what}")


def _writable(folder: Path) -> None:
    """Find out before hours of work that the results can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        what, remedy = trouble(error)
        raise DataError(
            f"cannot write here: {what}", where=str(folder), hint=f"{remedy}, or give another --out"
        ) from error


def _plan(recipe: Recipe, seeds: list[int], store: str | None, numerics: Any, force: list[str], as_json: bool) -> None:
    from mapsto import progress
    from mapsto.run import execute, path_of
    from mapsto.store import Store

    place = Store(store)
    sizes: dict[str, list[int]] = {}
    times: dict[str, list[float]] = {}  # of the store, which has those of stopped runs too
    for row in place.ls():
        times.setdefault(row["name"], []).append(row["seconds"])
        if row["bytes"] is not None:
            sizes.setdefault(row["name"], []).append(row["bytes"])
    index, notes = _index(place), progress.Notes()
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        steps = execute(recipe, store=place, seed=seed, numerics=numerics, force=force, plan=True, listener=notes).steps
        for step in steps:
            past, took = sizes.get(step.name), times.get(step.name)
            timed = _seconds_of(index, step.name)
            seconds = timed if timed is not None or not took else sum(took) / len(took)
            rows.append(
                {
                    "seed": seed,
                    "step": path_of(steps, step),
                    "name": step.name,
                    "status": "hit" if step.hit else "would run",
                    "key": step.key or None,
                    "seconds": 0.0 if step.hit else seconds,
                    "bytes": 0 if step.hit else (sum(past) // len(past) if past else None),
                }
            )
    if as_json:
        _json(rows)
    else:
        progress.print_plan(rows, notes.texts)


def _seconds_of(index: Index | None, name: str) -> float | None:
    return None if index is None else index.seconds_of(name)


# --------------------------------------------------------------------------------------------------------- list, show, new


_GROUPS = {"mappings": "mapping", "mapping": "mapping", "data": "data", "recipes": "recipe", "recipe": "recipe"}


@app.command("list")
def list_(
    pattern: Annotated[
        str, typer.Argument(help="Only names that contain this; or mappings, data or recipes for one of these lists.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List mappings, data sets and recipes by name.

    Example: mapsto list prune
    """
    from mapsto.names import recipes

    whole = _GROUPS.get(pattern)
    rows = [
        {"group": noun, "name": entry.name, "summary": discovery.summary(entry)}
        for noun, group in (("mapping", "mappings"), ("data", "data"))
        for entry in discovery.entries(group).values()
        if (whole == noun if whole else pattern in entry.name)
    ]
    rows += [
        {"group": "recipe", "name": name, "summary": text}
        for name, text in recipes().items()
        if (whole == "recipe" if whole else pattern in name)
    ]
    if as_json:
        _json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    columns = _columns()
    for noun, title in (("mapping", "Mappings"), ("data", "Data"), ("recipe", "Recipes")):
        part = [row for row in rows if row["group"] == noun]
        if part:
            _print(f"{title}")
            for row in part:
                _print(f"  {row['name']:<{width}}  {row['summary']}"[:columns])
    if not rows:
        raise _unknown(pattern)


def _unknown(name: str) -> SpecError:
    """That nothing has this name, with the names that come nearest, and not all that there are."""
    from difflib import get_close_matches

    from mapsto.names import recipes

    known = [*discovery.entries("mappings"), *discovery.entries("data"), *recipes()]
    words = {word: each for each in known for word in (each.rpartition(".")[2], each)}
    close = list(dict.fromkeys(words[word] for word in get_close_matches(name, words, n=3)))
    quoted = " or ".join(f"'{each}'" for each in close)
    return SpecError(
        f"nothing is called '{name}'",
        hint=f"did you mean {quoted}?" if close else f"`{command('mapsto list')}` shows every name",
    )


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 200


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A mapping, a data set or a shipped recipe.")], as_json: JsonOption = False
) -> None:
    """Show what a mapping does: its fields with defaults and ranges, what it takes and gives; or a recipe's text.

    The last word of a name is enough where only one has it, as in `mapsto show mlp`.

    Example: mapsto show prune.taylor
    """
    from mapsto.names import describe
    from mapsto.spec import shipped_recipes

    shipped = shipped_recipes()
    if name in shipped:
        text = shipped[name].read_text(encoding="utf-8")
        _json({"name": name, "yaml": text}) if as_json else _print(text)
        return
    known = {group: _named(name, discovery.entries(group)) for group in ("mappings", "data")}
    matches = [(group, entry) for group, entries in known.items() for entry in entries]
    exact = [match for match in matches if match[1] == name]
    if len(exact or matches) > 1:
        raise SpecError(
            f"'{name}' is the last word of {len(matches)} names",
            hint=f"give one of {', '.join(entry for _, entry in matches)}",
        )
    for group, entry in exact or matches:
        tree = describe(group, entry)
        _json(tree) if as_json else _print(tree["text"])
        return
    raise _unknown(name)


def _named(name: str, known: Iterable[str]) -> list[str]:
    """The names that are `name`, or whose last word is."""
    return [entry for entry in known if name in (entry, entry.rpartition(".")[2])]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new recipe's name; NAME.yaml is written here.")],
    source: Annotated[
        str,
        typer.Option("--from", help="The recipe to start from: a shipped one, a file, or the --out folder of a run."),
    ] = "demo",
    as_json: JsonOption = False,
) -> None:
    """Start a recipe of your own from a shipped one, from a file, or from what a run was made of.

    Example: mapsto new mine --from demo
    """
    from mapsto.spec import load_recipe, shipped_recipes
    from mapsto.store import write_atomically

    shipped = shipped_recipes()
    origin = shipped.get(source) or Path(source)
    if (origin / "recipe.yaml").is_file():
        origin = origin / "recipe.yaml"
    if not origin.is_file():
        raise SpecError(f"there is no recipe '{source}'", where="--from", hint=nearest(source, shipped))
    recipe = load_recipe(origin)
    if not Path(name).name:
        raise SpecError("the new recipe needs a name", where="mapsto new", hint=command("mapsto new mine --from demo"))
    target = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    if target.exists():
        raise DataError("this file exists already", where=str(target), hint="give another name, or delete it first")
    text = origin.read_text(encoding="utf-8")
    word = re.fullmatch(r"(?!(?:on|off|yes|no|true|false|null|y|n)$)[A-Za-z_][\w-]*", target.stem, re.IGNORECASE)
    named = f"name: {target.stem if word else json.dumps(target.stem)}"
    lines = [named if line.startswith("name:") else line for line in text.splitlines()]
    write_atomically(target, ("\n".join(lines) + "\n").encode())
    load_recipe(target)
    again = command("mapsto run {recipe}", *_options_for(recipe, origin), recipe=target)
    _json({"file": str(target), "run": again}) if as_json else _print(f"wrote {target}; run it with: {again}")


def _options_for(recipe: Recipe, origin: Path) -> list[str]:
    """The options that a recipe is run with again: those of the run that it comes from, else trust in the factories that it names."""
    from mapsto import report as reports
    from mapsto.spec import factories_in

    made = origin.parent / "report.json"
    if origin.name == "recipe.yaml" and made.is_file():
        report = reports.load(made)
        with reports.reading(made):
            return reports.options_again(list(map(str, (report.get("command") or {}).get("options", ()))))
    packages = dict.fromkeys(name.partition(".")[0].partition(":")[0] for name in factories_in(recipe))
    return [word for package in packages if package != "mapsto" for word in ("--trust", package)]


# ----------------------------------------------------------------------------------------------------------- predict, report


@app.command()
def predict(
    package: Annotated[Path, typer.Argument(help="A package's folder, or the --out folder of a run that made one.")],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, .npy/.npz arrays, CSV or Parquet tables, or - for standard input."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder for the raw maps of a network whose output is dense, an .npy for each sample."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Classify files with an exported package. Needs no training library.

    Example: mapsto predict runs/demo photo1.png photo2.png
    """
    from mapsto_runtime.predictor import Predictor

    folder = package / "package" if (package / "package" / "manifest.json").is_file() else package
    predictor = Predictor(folder)
    if maps is not None:
        _require_maps(predictor, maps)
    written: set[str] = set()
    rows: list[dict[str, Any]] = []
    titles: list[str] = []
    errors: list[MapstoError] = []
    for name in _files(files):
        answers = predictor.answers([sys.stdin.buffer.read() if name == "-" else Path(name)])
        errors += answers.errors
        for note in answers.notes:
            _note(note)
        several = len(answers.predictions) + len(answers.errors) > 1
        for prediction in answers.predictions:
            titles.append(f"{name}, row {prediction.index + 1}" if several else name)
            scores = sorted(prediction.scores.items(), key=lambda item: -item[1])[:top]
            probability = prediction.probability
            kept = {} if maps is None else {"map": _write_map(prediction, maps, written)}
            rows.append(
                {
                    "file": name,
                    "index": prediction.index,
                    "label": prediction.label,
                    "probability": None if probability is None else round(probability, 4),
                    "top": {label: float(f"{score:.4g}") for label, score in scores},
                    **kept,
                }
            )
    if as_json:
        _json(rows)
    for title, row in () if as_json else zip(titles, rows, strict=True):
        if row["probability"] is None:
            place = f" → {row['map']}" if "map" in row else ""
            _print(f"{short(title, _PATH)}: {short(row['label'], _PATH)}{place}")
            continue
        others = "  ".join(
            f"{short(label)} {score:.2f}" for label, score in row["top"].items() if label != row["label"]
        )
        most = 40 if predictor.signature.answers == "classes" else _PATH
        _print(f"{short(title, _PATH)}: {short(row['label'], most)} ({row['probability']:.2f})   {others}")
    for error in errors[:-1]:
        _note(str(error))
    if errors:
        raise errors[-1]


def _require_maps(predictor: Predictor, folder: Path) -> None:
    """Makes the folder for maps. Raises `DomainError` where the package gives none."""
    if not predictor.signature.is_dense:
        raise DomainError(
            "its output is no map, so that there is nothing to write",
            where="--maps",
            hint="leave --maps out; the answers are on the screen, or in full with --json",
        )
    _writable(folder)


def _write_map(prediction: Prediction, folder: Path, written: set[str]) -> str:
    """The raw map as ``NAME.npy``; with a number where a file holds several samples, or files of two folders have one name."""
    import numpy as np

    from mapsto.store import write_atomically

    stem = Path(prediction.source.partition("[")[0]).stem if prediction.source[0] != "<" else "array"
    name = next(name for number in itertools.count() if (name := f"{stem}_{number}" if number else stem) not in written)
    written.add(name)
    content = io.BytesIO()
    np.save(content, cast("Any", prediction.map))
    write_atomically(folder / f"{name}.npy", content.getbuffer())
    return str(folder / f"{name}.npy")


def _files(given: list[str]) -> list[str]:
    """The files that are named, and the images in the folders that are."""
    from mapsto.data.image_folder import images_in

    found: list[str] = []
    for name in given:
        if not name:
            raise SpecError("an empty name is no file", where="mapsto predict", hint="give files, folders, or -")
        if not Path(name).is_dir():
            found.append(name)
            continue
        images, notes = images_in(Path(name))
        found += map(str, images)
        for note in notes:
            _note(note)
    return found


@app.command()
def adapt(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="[LEARNER] EXAMPLES",
            help="The examples: a folder with a folder of images for each class, an .npz archive or a table. Before them, where one is "
            "wanted, a learner: the --out folder of a run that trained one, or its package.",
        ),
    ],
    target: Annotated[str | None, typer.Option(help="The column of a table to predict.")] = None,
    task: Annotated[
        _Task, typer.Option(help="Whether a table's target is a class or a value; auto: by what the column holds.")
    ] = _Task.AUTO,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of a table to predict from, even where it seems to number the rows; may be repeated."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="A column of a table not to predict from; may be repeated.")
    ] = None,
    class_weights: Annotated[
        _Weights, typer.Option(help="balanced: each class counts as much as any other, however few its examples.")
    ] = _Weights.NONE,
    out: Annotated[Path | None, typer.Option(help="Where the package goes; by default runs/adapted.")] = None,
    step: Annotated[str | None, typer.Option(help="The run's step to take; by default its last learner.")] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds what is drawn.")] = 0,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """From a few labelled examples to a package that classifies: by a learner, or by the strongest network at hand.

    Example: mapsto adapt photos --out runs/mine

    Example: mapsto adapt runs/meta_protonet photos --out runs/mine

    Example: mapsto adapt table.csv --target column

    Example: mapsto adapt table.csv --target column --exclude a --class-weights balanced
    """
    from mapsto import kinds
    from mapsto import report as reports
    from mapsto.mapping import Context

    if len(places) > 2:
        raise SpecError(
            f"{len(places)} paths are given",
            where="mapsto adapt",
            hint="give one folder of examples, with a learner before it or without",
        )
    folder = out or Path("runs") / "adapted"

    class Telling(Context):
        """A context that shows warnings and notes when they come."""

        def show_message(self, text: str, level: int) -> None:
            _note(text)

    ctx = Telling(seed=seed)
    given = {
        "task": task.value,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "class_weights": class_weights.value,
    }
    with _writable_at_the_end(folder), kinds.trusting(*(trust or [])):
        package, found = _adapted(places, target, ctx, store, step, given)
        reports.save_package(package, folder / "package")
    if as_json:
        _json({**found, "warnings": ctx.warnings, "notes": ctx.notes, "package": str(folder / "package")})
        return
    for line in _counts(found["classes"], "row" if target is not None else "example"):
        _print(f"  {line}")
    _print(_sureness(found))
    example = command(
        "mapsto predict {folder} {file}", folder=folder, file="FILE.csv" if target is not None else "FILE"
    )
    _print(f"wrote {folder / 'package'}; try it with: {example}")


def _counts(classes: dict[str, int], what: str) -> list[str]:
    """How many examples each class has, a line each; of many classes the first, and a line on the others."""
    rows = [f"{short(title)}: {count} {what}{'' if count == 1 else 's'}" for title, count in classes.items()]
    if len(rows) <= _MOST_LINES:
        return rows
    rest = list(classes.values())[_MOST_LINES:]
    return [*rows[:_MOST_LINES], f"… and {len(rest)} more classes, {min(rest)} to {max(rest)} {what}s each"]


@contextmanager
def _writable_at_the_end(folder: Path) -> Generator[None]:
    """As `_writable`; where the block fails, no folder is left that was not there before."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    _writable(folder)
    try:
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):  # another program may have put something there
                each.rmdir()
        raise


def _adapted(
    places: list[Path], target: str | None, ctx: Context, store: str | None, step: str | None, given: dict[str, Any]
) -> tuple[Package, dict[str, Any]]:
    """The package of ``mapsto adapt`` and what it came to; `given` holds the options of tables, and class weights."""
    from mapsto.adapting import adapt_to, examples_in, find_learner, strongest_at_hand, tested
    from mapsto.adapting_tables import adapt_to_table
    from mapsto.data.image_folder import splits_in

    examples = places[-1]
    if target is not None:
        if len(places) == 2:
            raise SpecError(
                "a learner takes images or arrays; a table gets a model of its own",
                where="mapsto adapt",
                hint=command("mapsto adapt {table} --target {column}", table=examples, column=target),
            )
        if examples.is_dir():
            raise SpecError(
                "--target is a column of a table, and this is a folder",
                where=str(examples),
                hint=f"leave it out: {command('mapsto adapt {folder}', folder=examples)}",
            )
        package, found = adapt_to_table(examples, target, ctx, **given)
        return package, {"learner": "the table's columns", "method": "a linear model", **found}
    if examples.suffix.lower() in (".csv", ".tsv", ".parquet"):
        raise SpecError(
            "a table needs the column to predict",
            where=str(examples),
            hint=command("mapsto adapt {table} --target COLUMN", table=examples),
        )
    for name in ("task", "include", "exclude"):
        if given[name] not in ((), "auto"):
            raise SpecError(
                "it is for the columns of a table", where=f"--{name}", hint="leave it out for images and arrays"
            )
    splits = splits_in(examples)
    learn = splits.get("train", examples)
    if not examples.exists() or (len(places) == 1 and not examples.is_dir()):
        raise DataError(
            "there is no such folder" if not examples.exists() else "this is no folder of images",
            where=str(examples),
            hint="give a folder with a folder of images for each class, or a learner before an .npz archive",
        )
    if len(places) == 2:
        network, name = find_learner(places[0], store=store, label=step)
    else:
        network, name = strongest_at_hand(ctx, examples)
    if len(places) == 1:
        typed = command("mapsto adapt {examples} --class-weights balanced", examples=examples)
        ctx.advice["class_weights"] = f"use `{typed}`"
    package, found = adapt_to(network, examples_in(learn, network), ctx, class_weights=given["class_weights"])
    if "test" in splits:
        found |= tested(package, splits["test"])
    return package, {"learner": name, **found}


def _sureness(found: dict[str, Any]) -> str:
    """What was adapted, and how often it is right on examples that it was not adapted to."""
    text = f"'{found['learner']}' adapted by {found['method']}"
    if "test_accuracy_percent" in found:
        text += f"; right on {found['test_accuracy_percent']:.4g} % of {found['tested']} test files"
    if found.get("task") == "values" and "rmse" not in found:
        return f"{text}; how near the answers come is not known: there is one row"
    if "rmse" in found:
        always = f"{found['rmse_of_mean']:.4g} by always answering the mean"
        return f"{text}; root mean squared error {found['rmse']:.4g} by cross-validation ({always})"
    if "accuracy_percent" not in found:
        return f"{text}; how often it is right is not known: there are too few examples"
    others = " of the classes with two examples or more" if found.get("not_judged") else ""
    ends = f" ({found['accuracy_low_percent']:.3g} to {found['accuracy_high_percent']:.3g})"
    return f"{text}; right on {found['accuracy_percent']:.4g} %{ends}{others} by cross-validation in {found['folds']} folds"


@app.command()
def compress(
    model: Annotated[
        str,
        typer.Argument(help="The --out folder of a run, a recipe, or package.module:factory=weights.pt."),
    ],
    examples: Annotated[str, typer.Argument(metavar="[DATA]", help="The same as --data.", show_default=False)] = "",
    data: Annotated[
        str,
        typer.Option(
            help="A folder of class folders, an .npz archive, a table (with --target), or a data set as in a recipe."
        ),
    ] = "",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="latency=0.5ms, bytes=200kB, macs=10M or parameters=50k; given several times, all must hold."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="The column of a table that is predicted.")] = None,
    test: Annotated[str | None, typer.Option(help="Data that are only reported on, as --data.")] = None,
    shares: Annotated[
        str, typer.Option(help="Shares of the multiply-accumulates to try, besides the whole network.")
    ] = "0.5,0.25,0.125",
    epochs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Epochs of distillation for each share, of 100 steps for a learner; each is tried without distillation too.",
        ),
    ] = 10,
    step: Annotated[str | None, typer.Option(help="The run's step to take; by default its last network.")] = None,
    runtime: Annotated[
        str,
        typer.Option(
            help="What latency is measured in and the package is for: onnxruntime, openvino, litert, executorch."
        ),
    ] = "onnxruntime",
    mean: Annotated[
        str | None, typer.Option(help="A checkpoint's mean by channel, after division by 255: 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="A checkpoint's standard deviation by channel, likewise.")] = None,
    shape: Annotated[str | None, typer.Option("--input", help="Shape of one input of a checkpoint: 1,49,10.")] = None,
    arguments: Annotated[str | None, typer.Option(help="What its factory is called with: {num_classes: 10}.")] = None,
    output: Annotated[
        str | None,
        typer.Option(help="Which output of a checkpoint is taken, where it gives several: a name or a place."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for recipe, report and package. [default: runs/compress]")
    ] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch. [default: all cores]")] = None,
    trust: TrustOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write the recipe and say what would run; run nothing of it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Find the most accurate small network within limits: prune, refit, distil and quantize at several sizes, export the best.

    Each size is tried with and without distillation. A network of dense outputs is kept near to its own answers, without labels.

    Example: mapsto compress runs/demo digits --limit bytes=200kB

    Example: mapsto compress package.module:factory=weights.pt photos --limit latency=0.5ms --trust package
    """
    from mapsto import compressing, kinds

    if target is not None and "=" in target:
        raise SpecError(
            f"'{target}' is a limit, and --target is the column of a table that is predicted",
            where="--target",
            hint=f"write --limit {target}",
        )
    if bool(data) == bool(examples):
        what = "twice" if data else "no data are"
        raise SpecError(
            f"the data are given {what}" if data else f"{what} given",
            where="mapsto compress",
            hint="give a folder with a folder of images for each class, as in "
            f"`{command('mapsto compress {model} FOLDER --limit bytes=200kB', model=model)}`",
        )
    if not limit:
        raise SpecError(
            "no limit is given", where="mapsto compress", hint="as in --limit latency=0.5ms or --limit bytes=200kB"
        )
    limits = tuple(compressing.parse_limit(text) for text in limit)
    tried = _shares(shares)
    folder = out or Path("runs") / "compress"
    _writable(folder)
    node = compressing.data_node(data or examples, target)
    fields = compressing.checkpoint_fields(mean=mean, std=std, input=shape, arguments=arguments, output=output)
    given = compressing.model_nodes(model, step, data=node, fields=fields)
    if compressing.knows(given, node):
        _note(
            f"{model} has learnt from these very data, so that its own accuracy and that of what stays near to it are too good: "
            "give other examples, or others still with --test"
        )
    with kinds.trusting(*(trust or [])):
        signature = compressing.signature_of(given)
    text = compressing.compression_recipe(
        model=given,
        data=node,
        test=compressing.data_node(test, target)
        if test is not None
        else compressing.node_of_test_split(data or examples),
        limits=limits,
        shares=tried,
        epochs=epochs,
        seed=seed,
        runtime=runtime,
        signature=signature,
    )
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    run(
        str(recipe),
        settings=None,
        out=folder,
        store=store,
        device="cpu",
        precision="32-true",
        threads=threads,
        processes=1,
        strategy="auto",
        seed=None,
        seeds=None,
        quick=False,
        plan=plan,
        force=None,
        trust=trust,
        as_json=as_json,
    )
    if not plan:
        for said in compressing.said_of_original(
            json.loads((folder / "report.json").read_text(encoding="utf-8")), node
        ):
            _note(said)


def _shares(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or len(set(found)) != len(found) or not all(_LEAST_SHARE <= share <= 1 for share in found):
        raise SpecError(
            f"'{text}' is not a list of different shares of {_LEAST_SHARE:g} to 1", where="--shares", hint="0.5,0.25"
        )
    return found


_LEAST_SHARE = 0.001


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One --out folder to show, or two to compare.")],
    as_json: JsonOption = False,
) -> None:
    """Show a run's report, or two side by side.

    Example: mapsto report runs/demo runs/short
    """
    from mapsto import progress
    from mapsto import report as reports

    if len(runs) > 2:
        raise SpecError(f"{len(runs)} runs given; one is shown, two are compared", where="mapsto report")
    loaded = [reports.load(path) for path in runs]
    with reports.reading(*runs):
        if as_json:
            _json(loaded[0] if len(loaded) == 1 else reports.compare(*loaded))
        elif len(loaded) == 1:
            progress.print_outcome(loaded[0], runs[0])
        else:
            progress.print_comparison(reports.compare(*loaded), [str(path) for path in runs])


# --------------------------------------------------------------------------------------------------------------------- store


@store_app.command("ls")
def store_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List finished steps with time and size.

    Example: mapsto store ls
    """
    from mapsto import progress
    from mapsto.store import Store

    rows = Store(store).ls()
    _json(rows) if as_json else progress.print_store(rows)


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

    freed = Store(store).gc(keep_days=keep_days, checkpoint_days=_days(checkpoints_older_than), dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    _json(freed) if as_json else _print(f"{verb} {freed['files']} files, {freed['bytes'] / 2**20:.1f} MiB")


def _days(age: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw]?)", age.strip())
    if found is None:
        raise SpecError(
            f"not an age: '{age}'", where="--checkpoints-older-than", hint="a number and h, d or w, as in 30d"
        )
    return float(found[1]) * {"h": 1 / 24, "d": 1.0, "w": 7.0}[found[2] or "d"]


@store_app.command("verify")
def store_verify(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check every artifact against its digest; exit code 2 where one is damaged.

    Example: mapsto store verify
    """
    import dataclasses

    from mapsto.store import Store

    findings = Store(store).verify()
    if as_json:
        _json([dataclasses.asdict(finding) for finding in findings])
    for finding in findings if not as_json else []:
        users = f" (used by {', '.join(finding.used_by)})" if finding.used_by else ""
        _print(f"{finding.path}: {finding.what}{users}")
    if findings:
        raise typer.Exit(2)
    if not as_json:
        _print("every artifact matches its digest")


@store_app.command("index")
def store_index(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Make the index database again from the store.

    Example: mapsto store index
    """
    from mapsto.store import Store
    from mapsto.store.index import Index

    count = Index(Store(store)).rebuild()
    _json({"runs": count}) if as_json else _print(f"indexed {count} runs")


# ------------------------------------------------------------------------------------------------------- bench, doctor, lock


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="A benchmark; without one they are listed.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small settings: shows that it works; writes no result.")
    ] = False,
    only: Annotated[str, typer.Option(help="Only rows whose name holds this, where a benchmark has rows.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda, where a benchmark can run on either.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Run a benchmark of a checkout and write its result file.

    Example: mapsto bench engine --quick
    """
    from mapsto.names import benchmarks, run_benchmark

    known = benchmarks()
    if not name:
        _json(sorted(known)) if as_json else _print("\n".join(sorted(known)))
        return
    result = run_benchmark(name, quick=quick, only=only, device=device)
    if as_json:
        _json(result)


@app.command()
def doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say what is installed, which device there is, how the store is, what is missing and how to get it.

    Example: mapsto doctor
    """
    from mapsto.names import doctor_report

    tree = doctor_report(store)
    if as_json:
        _json(tree)
        return
    for section, rows in tree.items():
        _print(section)
        for key, value in rows.items():
            _print(f"  {key:<26} {value}")


@app.command()
def lock(
    reason: Annotated[str, typer.Option(help="Why code changes without a new version.")] = "",
    check: Annotated[bool, typer.Option("--check", help="Only compare.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare or rewrite the lock file of a checkout: hashes of each mapping's code.

    Example: mapsto lock --reason "renamed a private helper"
    """
    from mapsto.testing import check_lock, write_lock

    changed = check_lock() if check else write_lock(reason)
    _json({"changed": changed}) if as_json else _print("\n".join(changed) or "nothing has changed")
    if check and changed:
        raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        _print(__version__)
        raise typer.Exit

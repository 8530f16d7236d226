"""``mapsto stream``: learn from a table of events as they come, watched live, or answer them with what was learnt."""

from __future__ import annotations

import json
import time
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mapsto import discovery
from mapsto.cli.app import JsonOption, StoreOption, app, print_json, print_note, print_text
from mapsto.cli.run import typed, writable
from mapsto.cli.stream.names import slug
from mapsto.errors import SpecError, command, nearest
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.kinds import Block, Model, Stream
    from mapsto.process import Process
    from mapsto.run.result import RunResult

__all__ = ["stream"]

_LEARNERS = ("online.tabular", "online.softmax")
"""The first of them that there is learns where none is named."""
_KEPT = "stream.json"
"""The file of a run's folder that says what it is a run of."""
_MARK = "predictions.json"
"""The file of a run's folder that says what it wrote to its file of answers."""


class _Task(Enum):
    AUTO = "auto"
    CLASSES = "classes"
    VALUES = "values"


@app.command()
def stream(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            help="A table (.csv, .tsv, .parquet), lines of JSON (.jsonl), a folder that such files come into, or - for standard input.",
            show_default=False,
        ),
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to learn; an event without a value there is only answered.")
    ] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="A column to predict from; may be repeated. [default: all others]")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="The column that names an event, by which its label may come late.")
    ] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="The column of times.")] = None,
    task: Annotated[
        _Task, typer.Option(help="Whether the target is a class or a value; auto: by what the first events hold.")
    ] = _Task.AUTO,
    form: Annotated[
        str | None, typer.Option("--format", help="csv, jsonl, parquet. [default: by the file's ending]")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more at the end, until Ctrl-C.")] = False,
    learner: Annotated[str | None, typer.Option(help=f"What learns. [default: {_LEARNERS[0]}]")] = None,
    preset: Annotated[str | None, typer.Option(help="A learner's preset, where it has some: fast, accurate.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="field=value of the learner; may be repeated.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Events after which a row of the record is written.")] = 1000,
    drift: Annotated[
        str,
        typer.Option(help="What marks drifts in the record: adwin, ddm, kswin, page_hinkley, several as a,b, or none."),
    ] = "adwin",
    out: Annotated[
        Path | None, typer.Option(help="Folder for report and logs. [default: runs/ and the file's name]")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="A file for the answer to each event, .csv or .jsonl.")
    ] = None,
    publish_every: Annotated[
        int | None, typer.Option(min=1, help="Keep the model each so many events; `--from RUN@EVENTS` has it again.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Only answer, with this model: a run's folder, its name or digest, or RUN@EVENTS. Without FILE: list what a run kept.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="With --from: what stands behind each answer, its members and the nearest past events, as JSON.",
        ),
    ] = False,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds what is drawn.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but warnings and the result.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn from events as they come: each is answered before its label is seen. Stopped or killed, the same command goes on.

    Example: mapsto stream table.csv --target column

    Example: mapsto stream table.csv --target column --predictions answers.csv --publish-every 1000

    Example: mapsto stream table.csv --from runs/table --explain
    """
    fields = {
        "target": target,
        "features": tuple(features or ()),
        "id": id_column,
        "time": time_column,
        "follow": follow,
    }
    if str(predictions) == "-":
        if model is None:
            raise SpecError(
                "while it learns, standard output has the result", where="--predictions", hint="give a file's name"
            )
        predictions = None
    if model is not None:
        learning = {
            "--learner": learner,
            "--preset": preset,
            "--set": settings,
            "--publish-every": publish_every,
            "--out": out,
        }
        if given := [name for name, value in learning.items() if value]:
            raise SpecError(
                f"{given[0]} is for learning, and with --from nothing is learnt",
                where="mapsto stream",
                hint="leave one of them out",
            )
        if not file:
            _list_snapshots(model, store, as_json)
        else:
            _predict(file, form, fields, task, model, store, predictions, as_json or explain, explain=explain)
        return
    if explain:
        raise SpecError(
            "answers are explained with the model that has learnt", where="--explain", hint="give it with --from"
        )
    if not file:
        raise SpecError(
            "no stream is given",
            where="mapsto stream",
            hint="as in `"
            + command("mapsto stream {table} --target {column}", table="FILE.csv", column="COLUMN")
            + "`",
        )
    if target is None:
        raise SpecError(
            "a stream needs the column to learn",
            where=file,
            hint=command("mapsto stream {table} --target COLUMN", table=file),
        )
    node, chosen = _source(file, form, fields, task, quiet or as_json)
    mapping = _mapping(learner, preset, settings or [], node, every, drift)
    options = typed(
        {
            "--features": features,
            "--id": id_column,
            "--time": time_column,
            "--task": chosen if chosen != "classes" else None,
            "--format": form,
            "--follow": follow,
            "--learner": learner,
            "--preset": preset,
            "--set": settings,
            "--every": every if every != 1000 else None,
            "--drift": drift if drift != "adwin" else None,
            "--out": out,
            "--predictions": predictions,
            "--publish-every": publish_every,
            "--seed": seed or None,
        }
    )
    go_on = command("mapsto stream {table} --target {column}", *options, table=file, column=target)
    _learn(
        mapping,
        file=file,
        form=form,
        out=out,
        store=store,
        seed=seed,
        predictions=predictions,
        publish_every=publish_every,
        quiet=quiet,
        as_json=as_json,
        go_on=go_on,
    )


# ------------------------------------------------------------------------------------------------------------- learning


def _source(
    file: str, form: str | None, fields: dict[str, Any], task: _Task, quiet: bool
) -> tuple[dict[str, Any], str]:
    """The stream as in a recipe, and what its labels are."""
    from mapsto.cli.stream.sources import node_of_file, stream_of, task_of, times_in

    node = node_of_file(file, form, fields)
    chosen = task.value
    if task is _Task.AUTO:
        chosen = "classes"
        if file != "-" and not fields["follow"]:
            # without the column of times, so that what is no time is said once, by the run
            head = stream_of(node_of_file(file, form, {**fields, "time": None}))
            chosen = task_of(head, lambda text: None if quiet else print_note(text))
            if not quiet and fields["time"] is None and (times := times_in(head)):
                print_note(
                    f"column '{short(times[0])}' holds times, which are taken for words, another each: --time names the column "
                    "of times, which is not predicted from"
                )
    if chosen != "classes":
        node = node_of_file(file, form, {**fields, "task": chosen})
    return node, chosen


def _mapping(
    learner: str | None, preset: str | None, settings: list[str], node: dict[str, Any], every: int, drift: str
) -> Process[Any, Any]:
    """The learner with its fields. Raises `SpecError` for one that there is not, or a field that it has not."""
    from mapsto.recipe.nodes import step_from_node
    from mapsto.recipe.yaml_text import read_yaml

    known = [name for name in discovery.entries("mappings") if name.startswith("online.")]
    name = learner or next(name for name in _LEARNERS if name in known)
    name = name if name.startswith("online.") else f"online.{name}"
    if name not in known:
        raise SpecError(f"there is no learner '{name}'", where="--learner", hint=nearest(name, known))
    given: dict[str, Any] = {}
    for text in settings:
        field, sign, value = text.partition("=")
        if not sign or not field:
            raise SpecError(f"'{text}' is not like field=value", where="--set", hint="as in --set late=5000")
        given[field.strip()] = read_yaml(value, where=f"--set {field}")[1]
    if preset is not None:
        presets = cast("Any", discovery.find("mappings", name)).__pydantic_fields__
        if "preset" not in presets:
            raise SpecError(f"{name} has no presets", where="--preset", hint="leave it out, or name another --learner")
        given["preset"] = preset
    if every != 1000:
        given["every"] = every
    if detectors := [each.strip() for each in drift.split(",") if each.strip() not in ("", "none")]:
        given["drift"] = detectors
    return cast("Process[Any, Any]", step_from_node({name: {"stream": node, **given}}))


def _learn(
    mapping: Process[Any, Any],
    *,
    file: str,
    form: str | None,
    out: Path | None,
    store: str | None,
    seed: int,
    predictions: Path | None,
    publish_every: int | None,
    quiet: bool,
    as_json: bool,
    go_on: str,
) -> None:
    """Run it over a store, with the display and the report."""
    from mapsto.cli.stream.display import StreamDisplay, print_end
    from mapsto.cli.stream.predictions import PredictionFile
    from mapsto.cli.stream.sources import another, size_of
    from mapsto.context import Numerics
    from mapsto.kinds.canonical import dumps
    from mapsto.recipe.document import Recipe
    from mapsto.recipe.writer import dump, node_of
    from mapsto.report import build as reports
    from mapsto.run.executor import execute
    from mapsto.store import write_atomically

    source: Stream = cast("Any", mapping).stream
    kept = dumps({"step": node_of(mapping), "seed": seed}) + "\n"
    folder = _folder(kept, file, out)
    key_before = _key_of(folder) if _is_of(folder, kept) else None
    writable(folder)
    write_atomically(folder / _KEPT, kept.encode())
    recipe = Recipe(
        steps=mapping,
        name=slug(folder.name),
        title=f"{'standard input' if file == '-' else Path(file).name} → {mapping.name}",
    )
    notes: list[str] = []
    answers = None
    if predictions is not None:
        answers = PredictionFile(
            predictions, values=source.task == "values", say=print_note, mark=folder / _MARK, run=kept
        )
        answers.check()
    display = StreamDisplay(
        recipe.title,
        size=size_of(file, follow=cast("Any", source).follow if hasattr(source, "follow") else False),
        quiet=quiet,
        as_json=as_json,
        predictions=answers,
    )
    began = time.monotonic()
    with display:
        result = execute(
            recipe,
            store=store,
            seed=seed,
            numerics=Numerics(threads=1),
            # answers that nobody wrote down cannot be had from what is finished
            force=[mapping.name] if answers is not None and not answers.is_whole else (),
            listener=display,
            logs=folder / "logs",
            publish_every=publish_every,
        )
    step = result.steps[-1]
    report = reports.build(result) | {
        "command": {
            "recipe": str(folder / "recipe.yaml"),
            "options": ["--store", store] if store else [],
            "typed": go_on,
        }
    }
    reports.save(report, folder, recipe_yaml=dump(recipe))
    if display.is_unread:
        raise BrokenPipeError
    answer = command("mapsto stream {table} --from {snapshot}", table=another(file, form), snapshot=folder)
    stopped = step.status == "stopped" and (source.bounded or file != "-")
    if source.bounded and key_before not in (None, step.key):
        notes.append(
            f"{file} is not what it was in the last run, so that it was learnt from its beginning; --follow goes on where it was"
        )
    if step.hit:
        notes.append("nothing came since the last run: what it came to is in the store")
    if as_json:
        print_text(json.dumps({"summary": _summary(result, folder, stopped)}, ensure_ascii=False))
    else:
        for note in notes:
            print_note(note)
        print_end(
            step.account,
            folder=str(folder),
            stopped=stopped,
            go_on=go_on,
            answer=answer,
            seconds=time.monotonic() - began,
        )
    if stopped and source.bounded:
        raise typer.Exit(130)


def _summary(result: RunResult, folder: Path, stopped: bool) -> dict[str, Any]:
    step = result.steps[-1]
    return {
        **{name: value for name, value in step.account.items() if name != "position"},
        "warnings": list(step.warnings),
        "model": step.digest,
        "folder": str(folder),
        "stopped": stopped,
    }


def _folder(kept: str, file: str, out: Path | None) -> Path:
    """The run's folder: that of the same stream and learner, by what is `kept` of them, else one that no other run has."""
    stem = "input" if file == "-" else Path(file).absolute().name.partition(".")[0] or "stream"
    base = out or Path("runs") / slug(stem)
    tries = [base] if out is not None else [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 1000))]
    return next((each for each in tries if _is_free(each) or _is_of(each, kept)), base)


def _key_of(folder: Path) -> str | None:
    """The key of the learner's step in the folder's report; None where there is none."""
    try:
        return str(json.loads((folder / "report.json").read_text(encoding="utf-8"))["steps"][-1]["key"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_free(folder: Path) -> bool:
    if not folder.exists():
        return True
    return not any((folder / name).exists() for name in ("report.json", _KEPT)) and not any(folder.iterdir())


def _is_of(folder: Path, kept: str) -> bool:
    try:
        return (folder / _KEPT).read_text(encoding="utf-8") == kept
    except (OSError, ValueError):
        return False


# ------------------------------------------------------------------------------------------------------ what was learnt


def _predict(
    file: str,
    form: str | None,
    fields: dict[str, Any],
    task: _Task,
    name: str,
    store: str | None,
    predictions: Path | None,
    as_json: bool,
    *,
    explain: bool,
) -> None:
    """Answer a stream with a model, which learns nothing from it."""
    import numpy as np

    from mapsto.cli.stream.models import model_of
    from mapsto.cli.stream.predictions import PredictionFile
    from mapsto.cli.stream.sources import node_of_file, stream_of
    from mapsto.store import Store

    model, digest = model_of(name, Store(store))
    values = model.values.get("task", "classes") == "values"
    if task is not _Task.AUTO and (task is _Task.VALUES) is not values:
        raise SpecError(
            f"the model has learnt {'values' if values else 'classes'}", where="--task", hint="leave it out"
        )
    source = stream_of(node_of_file(file, form, {**fields, "task": "values" if values else None}))
    learner, classes = model.open(), model.signature.classes
    sink = PredictionFile(predictions, values=values, as_json=as_json)
    if explain and not sink.is_json:
        raise SpecError("explanations are lines of JSON", where="--predictions", hint="give a name that ends in .jsonl")
    sink.check()
    explained = getattr(learner, "explain", None)
    if explain and explained is None:
        raise SpecError(f"{model.learner} explains no answer", where="--explain", hint="learn with online.tabular")
    count = labels = 0
    good = 0.0
    with closing(sink):
        for block in source.open():
            if not count and len(block):
                _require_columns(model, block, file)
            scores = learner.predict(block)
            sink.add(count, block, scores, classes, explained(block) if explain and explained is not None else None)
            count += len(block)
            there = block.has_y & block.has_x
            if scores.shape[1]:
                there &= ~np.isnan(scores[:, 0])
                labels += int(there.sum())
                good += _good(scores[there], block.y[there], classes, values=values)
    where = f" to {predictions}" if predictions is not None else ""
    judged = ""
    if labels:
        judged = f"; mean absolute error {good / labels:.4g}" if values else f"; right on {100 * good / labels:.1f} %"
        judged += f" of the {labels:,} that have a label"
    print_note(
        f"{count:,} events answered{where} by {model.learner} after {model.events:,} events ({digest[:12]}){judged}"
    )


def _require_columns(model: Model, block: Block, file: str) -> None:
    """Says which of the model's columns the first events lack. Raises `SpecError` where they have none, so that all answers were alike."""
    learnt = [] if model.base is not None else [column.name for column in model.signature.columns]
    missing = [name for name in learnt if name not in block.x]
    if learnt and len(missing) == len(learnt) and block.has_x.any():
        raise SpecError(
            f"has none of the columns that the model learnt from: {few(learnt, 10)}",
            where=file,
            hint=f"it has {few([*block.x], 10)}; rename them, or give another model",
        )
    if missing:
        print_note(f"{file} lacks columns that the model learnt from, which count as missing: {few(missing, 10)}")


def _good(scores: Any, labels: Any, classes: tuple[str, ...], *, values: bool) -> float:
    """Right answers, or the sum of absolute errors of values."""
    if values:
        return float(abs(scores[:, 0] - labels).sum())
    answers = [classes[best] for best in scores.argmax(1).tolist()]
    return float(sum(answer == str(label) for answer, label in zip(answers, labels.tolist(), strict=True)))


def _list_snapshots(name: str, store: str | None, as_json: bool) -> None:
    """What a run has kept on its way."""
    from mapsto.cli.stream.models import snapshots
    from mapsto.store import Store

    found = snapshots(name.partition("@")[0], Store(store))
    if as_json:
        print_json([{"events": each.events, "digest": each.digest, "time": each.time} for each in found])
        return
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.time))
        print_text(f"{each.events:>12,} events  {each.digest[:12]}  {when}{'  (the end)' if each.is_end else ''}")
    last = f"{name.partition('@')[0]}@{found[-1].events}"
    print_text(
        f"answer with one: {command('mapsto stream {table} --from {snapshot}', table='FILE.csv', snapshot=last)}"
    )

"""``mapsto stream``: learn from a table of events as they come, watched live, or answer them with what was learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mapsto.cli.app import JsonOption, StoreOption, app, print_note
from mapsto.cli.run import typed
from mapsto.cli.stream.answering import list_snapshots, predict
from mapsto.cli.stream.learning import encoder_of, learn, learner_of, source_of
from mapsto.cli.stream.names import LEARNERS, LEARNERS_ON_AN_ENCODER, Task
from mapsto.cli.stream.sources import own_target
from mapsto.cli.stream.texts import LEARNER as TEXT_LEARNER
from mapsto.cli.stream.texts import is_text, looks_like_text, require_no_columns, write_on
from mapsto.errors import SpecError, command

__all__ = ["stream"]


@app.command()
def stream(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]",
            help="A table (.csv, .tsv, .parquet), lines of JSON (.jsonl), a text (.txt), MovieLens' u.data, ratings.dat or "
            "ratings.csv, a folder that such files come into, - for standard input, kafka://HOST:PORT/TOPIC, or "
            "feedback:MODEL@STATE for what a service was told.",
            show_default=False,
        ),
    ] = "",
    target: Annotated[
        str | None, typer.Option(help="The column to learn; an event without a value there is only answered.")
    ] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="A column to predict from; may be repeated. [default: all others]")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="The column of texts: a pretrained encoder reads them. Give two for pairs of texts."),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --text: the encoder, a folder saved by transformers or hf:OWNER/NAME. [default: MiniLM, English]",
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="The column that names an event, by which its label may come late.")
    ] = None,
    time_column: Annotated[str | None, typer.Option("--time", help="The column of times.")] = None,
    task: Annotated[
        Task, typer.Option(help="Whether the target is a class or a value; auto: by what the first events hold.")
    ] = Task.AUTO,
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, jsonl, parquet, bytes, movielens. [default: by the file's ending]"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more at the end, until Ctrl-C.")] = False,
    learner: Annotated[
        str | None, typer.Option(help=f"What learns. [default: {LEARNERS[0]}; of a text {TEXT_LEARNER}]")
    ] = None,
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
    continued: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="TEXT", help="With --from, of online.language: write on from this text, and end."
        ),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="With --continue: bytes to write.")] = 400,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="With --continue: how freely it draws; 0 is always the likeliest byte.")
    ] = 0.8,
    top: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --from: of each event's user the so many items that are recommended, best first."
        ),
    ] = None,
    store: StoreOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds what is drawn.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing but warnings and the result.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn from events as they come: each is answered before its label is seen. Stopped or killed, the same command goes on.

    Example: mapsto stream table.csv --target column

    Example: mapsto stream table.csv --target column --predictions answers.csv --publish-every 1000

    Example: mapsto stream intents.csv --text text --target intent

    Example: mapsto stream table.csv --from runs/table --explain

    Example: mapsto stream book.txt

    Example: mapsto stream --from runs/book --continue "To be, or"
    """
    if text and features:
        raise SpecError("texts are predicted from by themselves", where="--features", hint="leave it out")
    if encoder is not None and not text:
        raise SpecError("it reads texts", where="--encoder", hint="name their column with --text")
    fields = {
        "target": target,
        "features": tuple(text or features or ()),
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
        if continued is not None:
            write_on(
                *(model, continued),
                length=length,
                temperature=temperature,
                seed=seed,
                store=store,
                as_json=as_json,
            )
        elif not file:
            list_snapshots(model, store, as_json)
        else:
            predict(file, form, fields, task, model, store, predictions, as_json or explain, explain=explain, top=top)
        return
    if continued is not None:
        raise SpecError("a text is gone on with by a model", where="--continue", hint="give it with --from")
    if top is not None:
        raise SpecError(
            "items are recommended with the model that has learnt", where="--top", hint="give it with --from"
        )
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
    target = target or own_target(file)
    if looks_like_text(file) and not (target or features or text or learner or form):
        learner = TEXT_LEARNER
        if not (quiet or as_json):
            print_note(
                f"{file} is learnt as a text, byte by byte, by {TEXT_LEARNER}; of a table --target names a column"
            )
    if of_text := is_text(form, learner):
        require_no_columns(
            {
                "--target": target,
                "--features": features,
                "--text": text,
                "--id": id_column,
                "--time": time_column,
                "--task": task is not Task.AUTO,
            }
        )
        form, learner = "bytes", learner or TEXT_LEARNER
    elif target is None:
        raise SpecError(
            "a stream needs the column to learn",
            where=file,
            hint=command("mapsto stream {table} --target COLUMN", table=file),
        )
    node, chosen = source_of(*(file, form, fields, task, quiet or as_json), learner=learner, settings=settings or [])
    before = encoder_of(encoder, text) if text else None
    named = learner or (LEARNERS_ON_AN_ENCODER[0] if text else None)
    mapping = learner_of(named, preset, settings or [], node, every, drift)
    options = typed(
        {
            "--features": features,
            "--text": text,
            "--encoder": encoder,
            "--id": id_column,
            "--time": time_column,
            "--task": chosen if chosen != "classes" else None,
            "--format": form,
            "--follow": follow,
            "--learner": None if of_text else learner,
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
    go_on = (
        command("mapsto stream {book} --learner {learner}", *options, book=file, learner=learner)
        if of_text
        else command("mapsto stream {table} --target {column}", *options, table=file, column=target)
    )
    learn(
        mapping,
        before=before,
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

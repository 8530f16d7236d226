"""``mapsto stream FILE --from MODEL``: answer the events with what was learnt, and list what a run kept."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.app import print_json, print_note, print_text
from mapsto.cli.stream.names import Task
from mapsto.cli.stream.texts import FORM, LEARNER, read_on, require_no_columns
from mapsto.errors import SpecError, command
from mapsto_runtime.shown import few

if TYPE_CHECKING:
    from mapsto.kinds import Block, Model

__all__ = ["list_snapshots", "predict"]


def predict(
    file: str,
    form: str | None,
    fields: dict[str, Any],
    task: Task,
    name: str,
    store: str | None,
    predictions: Path | None,
    as_json: bool,
    *,
    explain: bool,
    top: int | None = None,
) -> None:
    """Answer a stream with a model, which learns nothing from it; columns that are not named are those that it learnt from."""
    import numpy as np

    from mapsto.cli.stream.models import model_of
    from mapsto.cli.stream.predictions import PredictionFile
    from mapsto.cli.stream.sources import node_of_file, stream_of
    from mapsto.store import Store

    model, digest = model_of(name, Store(store))
    if form == FORM or model.learner == LEARNER:
        of_tables = {f"--{role}": value for role, value in fields.items() if role != "follow"}
        of_tables |= {"--task": task is not Task.AUTO, "--explain": explain, "--top": top}
        require_no_columns(of_tables, hint="answer with a model that has learnt a table")
        if form not in (None, FORM):
            raise SpecError(f"{model.learner} reads bytes", where=f"--format {form}", hint="leave it out")
        read_on(file, name, store, predictions, as_json)
        return
    values = model.values.get("task", "classes") == "values"
    if task is not Task.AUTO and (task is Task.VALUES) is not values:
        raise SpecError(
            f"the model has learnt {'values' if values else 'classes'}", where="--task", hint="leave it out"
        )
    fields = _with_learnt(fields, name, file, form)
    source = stream_of(node_of_file(file, form, {**fields, "task": "values" if values else None}))
    if top is not None:
        from mapsto.cli.stream.recommending import recommend

        if explain:
            raise SpecError("what is recommended is not explained", where="--explain", hint="leave one of them out")
        count = recommend(model, source, top, predictions, as_json=as_json)
        print_note(f"{count:,} events answered by {model.learner} after {model.events:,} events ({digest[:12]})")
        return
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


def _with_learnt(fields: dict[str, Any], name: str, file: str, form: str | None) -> dict[str, Any]:
    """The columns as they are named, else as in the stream that the run of that folder or name learnt from, where this one has them."""
    from mapsto.cli.stream.names import slug
    from mapsto.cli.stream.sources import node_of_file, stream_of

    run = name if Path(name).exists() else name.rpartition("@")[0] or name
    places = (Path(run), Path("runs") / slug(run))
    learnt = next((found for place in places if (found := _learnt_from(place / "stream.json")) is not None), None)
    if learnt is None:
        return fields
    wanted = {role: learnt[role] for role in ("features", "target", "id", "time") if learnt.get(role)}
    if file == "-":  # it can be read once only: what else it has is not known before
        wanted = {role: columns for role, columns in wanted.items() if role == "features"}
        names = set(wanted.get("features", ()))
    else:
        plain = stream_of(node_of_file(file, form, {}))
        names = set(next((block.x for block in plain.open(size=1)), {}))
    known = {
        role: tuple(columns) if role == "features" else columns
        for role, columns in wanted.items()
        if {*([columns] if isinstance(columns, str) else columns)} <= names
    }
    return {**fields, **{role: columns for role, columns in known.items() if not fields.get(role)}}


def _learnt_from(file: Path) -> dict[str, Any] | None:
    """The fields of the stream in a run's ``stream.json``; None where there is none."""
    try:
        step: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["step"]
        (fields,) = step.values()
        (stream,) = fields["stream"].values()
        return dict(stream)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


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


def list_snapshots(name: str, store: str | None, as_json: bool) -> None:
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

"""``mapsto versions`` and ``mapsto feedback``: what a service has made of examples and labels, and which version answers."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text
from mapsto.cli.service_state import PackageArgument, StateOption, opened_state
from mapsto.errors import SpecError, command, nearest
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.service.state import FeedbackRow, State

_ModelOption = Annotated[str | None, typer.Option(help="The model, where the state has several.")]
_BASE = "1"


@app.command()
def versions(
    package: PackageArgument = None,
    state: StateOption = None,
    model: _ModelOption = None,
    promote: Annotated[str | None, typer.Option(metavar="VERSION", help="Let this version answer.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Let the version before answer again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a served model; let another one answer. A service that runs takes it over within a second.

    Example: mapsto versions runs/demo

    Example: mapsto versions runs/demo --rollback
    """
    if promote is not None and rollback:
        raise SpecError("--promote and --rollback are two wishes", where="mapsto versions", hint="give one of them")
    with opened_state(package, state, where="mapsto versions") as held:
        names = held.models()
        if promote is not None or rollback:
            name = _model(names, model)
            before = held.active(name) or _BASE
            version = held.active_before(name) or _BASE if rollback else str(promote)
            answering = [row["version"] for row in _rows(held, name) if row["answers"]]
            if (
                version == before and version in answering
            ):  # one of a package that is not served is still the active one
                print_note(f"version {version} of '{name}' answers already")
            else:
                _let_answer(held, name, version, before)
                print_note(f"version {version} of '{name}' answers now, in place of {before}")
        chosen = [_model(names, model)] if model is not None else names
        rows = [row for name in chosen for row in _rows(held, name)]
    if as_json:
        print_json(rows)
        return
    from mapsto.cli.progress import print_rows

    shown = [
        {**row, "made": _time(row["made"])} | {name: "yes" if row[name] else "" for name in ("answers", "marked")}
        for row in rows
    ]
    if any(row["marked"] for row in rows):
        print_note("a version that is marked learnt from what was erased since")
    else:
        shown = [{name: value for name, value in row.items() if name != "marked"} for row in shown]
    print_rows(shown) if shown else print_text("the package itself answers; there are no other versions")


@app.command()
def feedback(
    package: PackageArgument = None,
    state: StateOption = None,
    model: _ModelOption = None,
    last: Annotated[int, typer.Option(min=0, help="How many labels to show.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A CSV file for all labels.")] = None,
    distrust: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Undo what a key taught, by its name (of a token, its subject): its labels count for nothing from now on, and the last "
            "version that learnt none of them answers.",
        ),
    ] = None,
    count_again: Annotated[str | None, typer.Option(metavar="NAME", help="Let those labels count again.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the labels that a served model was given: by whom, how often each version was right, how far the learner is, the last labels.

    Example: mapsto feedback runs/demo --last 20

    Example: mapsto feedback runs/demo --distrust phone
    """
    if distrust is not None and count_again is not None:
        raise SpecError("--distrust and --count-again are two wishes", where="mapsto feedback", hint="give one of them")
    with opened_state(package, state, where="mapsto feedback") as held:
        if distrust is not None:
            _distrust(held, distrust, package)
        if count_again is not None:
            _trust(held, count_again)
        names = held.models()
        chosen = [_model(names, model)] if model is not None else names
        found = [_summary(held, name, last) for name in chosen]
        if out is not None:
            _write(held, chosen, out)
    if as_json:
        print_json(found)
        return
    if not found:
        print_text("no labels were given")
    from mapsto.cli.progress import print_rows

    for each in found:
        some = f"{each['counting']} of {each['labels']} labels count"
        many = f"{each['labels']} labels" if each["counting"] == each["labels"] else some
        print_text(f"{each['model']}: {many}, {each['behind']} of them not learnt yet")
        if each["note"]:
            print_text(f"  {'the last learnt version: ' if each['version'] else ''}{each['note']}")
        if each["answers"] not in (_BASE, each["version"]):
            print_text(f"  version {each['answers']} answers: {each['why']}")
        for rows in (
            each["served"],
            [{**row, "first": _time(row["first"]), "last": _time(row["last"])} for row in each["given"]],
        ):
            if rows:
                print_rows(rows)
        if each["last"]:
            print_rows([{**row, "time": _time(row["time"])} for row in each["last"]])
    if out is not None:
        print_note(f"wrote {out}")


def _model(names: list[str], wanted: str | None) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    what = f"there is no model '{wanted}'" if wanted is not None else f"there are {len(names)} models"
    raise SpecError(what, where="--model", hint=nearest(wanted or "", names) if names else "nothing was served yet")


def _let_answer(state: State, model: str, version: str, before: str) -> None:
    """Raises `SpecError` for a version that there is not, or that is private."""
    from mapsto.service.state import PROMOTED

    known = {row.version: row for row in state.versions(model)}
    if version != _BASE and version not in known:
        raise SpecError(
            f"'{model}' has no version '{version}'", where="--promote", hint=nearest(version, [_BASE, *known])
        )
    served = state.package(model)
    if version != _BASE and served and known[version].package != served:
        raise SpecError(
            f"version '{version}' stands on the package {known[version].package[:12]}, and '{model}' is served from {served[:12]}",
            where="--promote",
            hint="promote a version of that package, or 1, which is the package itself",
        )
    if version != _BASE and known[version].owner is not None:
        raise SpecError(
            f"version '{version}' is private to the tenant '{known[version].owner}'",
            where="--promote",
            hint="adapt with shared: true, so that it may answer everyone",
        )
    read = state.active(model)
    if (read or _BASE) != before or not state.promote(model, version, read=read, why=f"{PROMOTED} on the command line"):
        raise SpecError(f"another version than {before} answers now", where=model, hint="look again")


def _rows(state: State, model: str) -> list[dict[str, Any]]:
    """The versions of a model. Those that stand on another package than the one that is served do not answer."""
    active, served, rows = state.active(model) or _BASE, state.package(model), state.versions(model)
    marked = state.marked(model)
    answers = {row.version for row in rows if row.version == active and served in ("", row.package)}
    package = {"model": model, "version": _BASE, "kind": "package", "made": 0.0, "answers": not answers}
    return [
        {**package, "from": "", "package": served[:12], "tenant": "", "marked": False, "note": ""},
        *(
            {
                "model": model,
                "version": row.version,
                "kind": row.kind,
                "made": row.created,
                "answers": row.version in answers,
                "from": row.parent,
                "package": row.package[:12],
                "tenant": row.owner or "",
                "marked": row.version in marked,
                "note": row.note,
            }
            for row in rows
        ),
    ]


def _distrust(state: State, name: str, package: str | None) -> None:
    """Raises `SpecError` where nobody of that name gave labels."""
    from mapsto.service.distrust import distrust, given_by

    names = sorted({each.caller for model in state.models() for each in given_by(state, model) if each.caller})
    if name not in names:
        who = f"labels were given by {few(names)}" if names else "no labels were given"
        raise SpecError(f"'{short(name)}' gave no labels", where="--distrust", hint=who)
    changed = distrust(state, name)
    print_note(f"the labels of {name} count for nothing; end the key too")
    if package is not None:
        print_note(f"`{command('mapsto keys end {model} --name {caller}', model=package, caller=name)}` ends it")
    for model, (was, now) in changed.items():
        print_note(f"version {now} of '{model}' answers now, in place of {was}; what learnt from them is gone")


def _trust(state: State, name: str) -> None:
    from mapsto.service.distrust import trust

    print_note(f"the labels of {name} count again" if trust(state, name) else f"the labels of {name} did count")


def _summary(state: State, model: str, last: int) -> dict[str, Any]:
    from mapsto.service.distrust import given_by

    position, version, note, _ = state.learner_status(model) or (0, "", "", 0.0)
    if version and not state.known(model, [version]):  # somebody's labels were undone, or a subject forgotten
        version, note = "", "the version that was learnt last is gone"
    name, served, given = state.active(model), state.package(model), given_by(state, model)
    own = (row for row in state.versions(model) if row.version == name and served in ("", row.package))
    active = next(own, None)
    rows: list[FeedbackRow] = []
    after, labels = 0, 0
    while batch := state.feedback(model, after=after, most=1000):
        labels += len(batch)
        after = batch[-1].position
        rows = [*rows, *batch][-last:] if last else []
    return {
        "model": model,
        "labels": labels,
        "counting": sum(each.labels for each in given if each.trusted),
        "behind": state.behind(model, position)[0],
        "version": version,
        "note": note,
        "answers": active.version if active is not None else _BASE,
        "why": active.note if active is not None else "",
        "served": [
            {"version": version, "labels": count, "right, %": round(100 * right / count, 1)}
            for version, count, right in state.served(model)
        ],
        "given": [
            {
                "by": each.caller,
                "tenant": each.tenant,
                "labels": each.labels,
                "answers right, %": round(100 * each.right / each.answers, 1) if each.answers else "",
                "first": each.first,
                "last": each.last,
                "counts": "yes" if each.trusted else "no",
            }
            for each in given
        ],
        "last": [
            {"time": row.time, "event": row.event, "version": row.version, "answer": row.answer, "label": row.label}
            for row in rows
        ],
    }


def _write(state: State, models: list[str], out: Path) -> None:
    from mapsto.store import write_atomically

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "position", "time", "tenant", "by", "event", "version", "answer", "label"))
    for model in models:
        after = 0
        while batch := state.feedback(model, after=after, most=1000):
            after = batch[-1].position
            for row in batch:
                own = (row.position, row.time, row.tenant, row.caller, row.event, row.version, row.answer, row.label)
                writer.writerow((model, *own))
    write_atomically(out, text.getvalue().encode())


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""

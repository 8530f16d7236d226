"""``mapsto stream FILE``: learn from the events, with the display, the report and what a later run goes on with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from mapsto import discovery
from mapsto.cli.app import print_note, print_text
from mapsto.cli.run import writable
from mapsto.cli.stream.names import LEARNERS, Task, slug
from mapsto.errors import SpecError, command, nearest
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.kinds import Stream
    from mapsto.mapping import Mapping
    from mapsto.process import Process
    from mapsto.run.result import RunResult

__all__ = ["encoder_of", "learn", "learner_of", "source_of"]

_KEPT = "stream.json"
"""The file of a run's folder that says what it is a run of."""
_MARK = "predictions.json"
"""The file of a run's folder that says what it wrote to its file of answers."""


def source_of(
    file: str,
    form: str | None,
    fields: dict[str, Any],
    task: Task,
    quiet: bool,
    *,
    learner: str | None,
    settings: list[str],
) -> tuple[dict[str, Any], str]:
    """The stream as in a recipe, and what its labels are."""
    from mapsto.cli.stream.recommended_task import is_recommender, task_of_tastes, task_unseen
    from mapsto.cli.stream.sources import node_of_file, says_its_task, stream_of, task_of, times_in

    node = node_of_file(file, form, fields)
    chosen = task.value
    if says_its_task(node):
        known = stream_of(node).task
        if chosen not in ("auto", known):
            raise SpecError(f"the target holds {known}", where="--task", hint="leave it out")
        return node, known
    if task is Task.AUTO:
        chosen = "classes"
        tastes = {name: field for name, field in _settings(settings).items() if name in ("user", "item")}
        item = None if "item" not in tastes else str(tastes["item"])
        user = None if "user" not in tastes else str(tastes["user"])
        say = _silent if quiet else print_note
        if is_recommender(learner):
            # what a file holds by now can be looked at, even where more is waited for
            if file == "-" or (fields["follow"] and not Path(file).exists()):
                chosen = task_unseen(fields["target"], item, file)
            else:
                head = stream_of(node_of_file(file, form, {**fields, "time": None, "follow": False}))
                chosen = task_of_tastes(head, fields["target"], user, item, say)
        elif form != "bytes" and file != "-" and not fields["follow"]:
            # without the column of times, so that what is no time is said once, by the run
            head = stream_of(node_of_file(file, form, {**fields, "time": None}))
            chosen = task_of(head, say)
            if not quiet and fields["time"] is None and (times := times_in(head)):
                print_note(
                    f"column '{short(times[0])}' holds times, which are taken for words, another each: --time names the column "
                    "of times, which is not predicted from"
                )
    if chosen != "classes":
        node = node_of_file(file, form, {**fields, "task": chosen})
    return node, chosen


def learner_of(
    learner: str | None, preset: str | None, settings: list[str], node: dict[str, Any], every: int, drift: str
) -> Process[Any, Any]:
    """The learner with its fields. Raises `SpecError` for one that there is not, or a field that it has not."""
    from mapsto.recipe.nodes import step_from_node

    known = [name for name in discovery.entries("mappings") if name.startswith("online.")]
    name = learner or next(name for name in LEARNERS if name in known)
    name = name if name.startswith("online.") else f"online.{name}"
    if name not in known:
        raise SpecError(f"there is no learner '{name}'", where="--learner", hint=nearest(name, known))
    given = _settings(settings)
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


def _settings(settings: list[str]) -> dict[str, Any]:
    """Fields of the learner as given by ``--set``."""
    from mapsto.recipe.yaml_text import read_yaml

    given: dict[str, Any] = {}
    for text in settings:
        field, sign, value = text.partition("=")
        if not sign or not field:
            raise SpecError(f"'{text}' is not like field=value", where="--set", hint="as in --set late=5000")
        given[field.strip()] = read_yaml(value, where=f"--set {field}")[1]
    return given


def _silent(text: str) -> None:
    """For who wants to see nothing."""


def encoder_of(folder: Path | None, columns: list[str]) -> Mapping[Any, Any]:
    """What gives the encoder that reads texts, as a package for ONNX Runtime.

    `folder` as `mapsto.cli.encoders.encoder_node` takes it.

    Raises `SpecError` for more than two columns of texts.
    """
    from mapsto.cli.encoders import encoder_node
    from mapsto.recipe.nodes import step_from_node

    if len(columns) > 2:
        raise SpecError(f"{len(columns)} columns are named", where="--text", hint="name one, or two for pairs of texts")
    made: Any = step_from_node(encoder_node(folder, texts=len(columns))[0])
    return made >> discovery.find("mappings", "export.onnx")()


def learn(
    mapping: Process[Any, Any],
    *,
    before: Mapping[Any, Any] | None,
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
    """Run it over a store, with the display and the report; `before` gives the encoder that it stands on."""
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
    on = {} if before is None else {"encoder": node_of(before)}
    kept = dumps({"step": node_of(mapping), "seed": seed, **on}) + "\n"
    folder = _folder(kept, file, out)
    key_before = _key_of(folder) if _is_of(folder, kept) else None
    writable(folder)
    write_atomically(folder / _KEPT, kept.encode())
    recipe = Recipe(
        steps=mapping if before is None else before >> mapping,
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
        size=size_of(file, form, follow=cast("Any", source).follow if hasattr(source, "follow") else False),
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
    if mapping.name == "online.language":
        answer = command("mapsto stream --from {learnt} --continue {beginning}", learnt=folder, beginning="To be")
        if not step.account["labels"]:
            answer = ""
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

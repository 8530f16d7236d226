"""``mapsto predict``: a package's answers for files, folders and rows."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mapsto.errors import DomainError, MapstoError, SpecError, command

if TYPE_CHECKING:
    from mapsto_runtime.predictor import Prediction, Predictor
from mapsto.cli.app import JsonOption, app, print_json, print_note, print_text
from mapsto.cli.package import TrustedKeysOption, UnsignedOption
from mapsto.cli.run import writable


class _By(Enum):
    OCCLUSION = "occlusion"
    INTEGRATED_GRADIENTS = "integrated_gradients"
    GRADIENT_X_INPUT = "gradient_x_input"
    SALIENCY = "saliency"
    SMOOTH_GRAD = "smooth_grad"


@app.command()
def predict(
    package: Annotated[Path, typer.Argument(help="A package's folder, or the --out folder of a run that made one.")],
    files: Annotated[
        list[str],
        typer.Argument(
            help="Images, folders of images, .npy/.npz arrays, CSV or Parquet tables, or - for standard input; for a package that reads "
            "texts also the texts themselves."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show.")] = 3,
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder for the raw maps of a network whose output is dense, an .npy for each sample."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which words, columns or places of an image speak for each answer.")
    ] = False,
    target: Annotated[
        str | None, typer.Option(help="With --explain: the class, label or value to explain; by default the answer.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --explain: a folder for a page, explanations.html, and pictures.")
    ] = None,
    by: Annotated[
        _By,
        typer.Option(
            help="With --explain: how parts are scored. All but occlusion take gradients: of a run's folder whose store is at hand, with "
            "the extra `explain`."
        ),
    ] = _By.OCCLUSION,
    examples: Annotated[
        bool | None,
        typer.Option(
            "--examples/--no-examples",
            help="With --explain: name the labelled examples that the answer rests on. By default where the run adapted a network to some.",
        ),
    ] = None,
    trusted_keys: TrustedKeysOption = None,
    unsigned: UnsignedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify files with an exported package. Needs no training library.

    Example: mapsto predict runs/demo photo1.png photo2.png

    Example: mapsto predict runs/intents "where is my card?"

    Example: mapsto predict runs/demo photo1.png --explain --out explained
    """
    from mapsto.cli.explanations import Explaining
    from mapsto_runtime.answer_rows import given_input, line, package_folder, rows
    from mapsto_runtime.explanation_lines import lines
    from mapsto_runtime.predictor import Predictor
    from mapsto_runtime.signed_package import Trust

    if (package / "stream.json").is_file() and not (package / "package").exists():
        raise SpecError(
            "is the folder of a stream's run, whose model is no package",
            where=str(package),
            hint=f"`{command('mapsto stream {table} --from {snapshot}', table=files[0], snapshot=package)}` answers with it",
        )
    predictor = Predictor(package_folder(package), trust=Trust.of(trusted_keys or (), unsigned or ""))
    if predictor.verified.note:
        print_note(predictor.verified.note)
    if maps is not None:
        _require_maps(predictor, maps)
    way = None if by is _By.OCCLUSION else by.value
    _refuse_without(explain, {"--target": target, "--out": out, "--by": way, "--examples": examples})
    explaining = (
        Explaining(predictor, package, target=target, out=out, by=by.value, examples=examples) if explain else None
    )
    written: set[str] = set()
    found: list[tuple[str, dict[str, Any]]] = []
    explained: dict[int, list[str]] = {}
    errors: list[MapstoError] = []
    texts = predictor.signature.preprocessing.kind == "text"
    for name in files if texts else _files(files):
        given = given_input(name, texts=texts)
        answers = predictor.answers([given])
        errors += answers.errors
        reasons, unexplained = explaining.of(given) if explaining is not None else ({}, [])
        errors += unexplained
        for note in answers.notes:
            print_note(note)
        for title, prediction, row in rows(name, answers, top=top):
            if maps is not None:
                row["map"] = _write_map(prediction, maps, written)
            if explaining is not None and prediction.index in reasons:
                reason = reasons[prediction.index]
                supported = explaining.support(reason)
                row["explanation"] = reason.plain() | ({"support": supported.plain()} if supported else {})
                explained[id(row)] = [*lines(reason), *(supported.lines() if supported else ())]
                said = line(predictor, title, row).removeprefix(f"{title}: ")
                explaining.keep(title, said, reason, supported)
            found.append((title, row))
    if as_json:
        print_json([row for _, row in found])
    for title, row in () if as_json else found:
        print_text(line(predictor, title, row))
        for said in explained.get(id(row), ()):
            print_text(said)
    if explaining is not None and (files_made := explaining.written()):
        print_note(f"wrote {files_made[0]}")
    for error in errors[:-1]:
        print_note(str(error))
    if errors:
        raise errors[-1]


def _refuse_without(explain: bool, options: Mapping[str, object]) -> None:
    """Raises `SpecError` for an option of explanations where none is asked for."""
    for name, value in options.items():
        if value is not None and not explain:
            raise SpecError("it is of use with --explain alone", where=name, hint="add --explain, or leave it out")


def _require_maps(predictor: Predictor, folder: Path) -> None:
    """Makes the folder for maps. Raises `DomainError` where the package gives none."""
    if not predictor.signature.is_dense:
        raise DomainError(
            "its output is no map, so that there is nothing to write",
            where="--maps",
            hint="leave --maps out; the answers are on the screen, or in full with --json",
        )
    writable(folder)


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
    from mapsto.data.io.image_folder import images_in

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
            print_note(note)
    return found

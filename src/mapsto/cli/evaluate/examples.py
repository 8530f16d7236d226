"""Labelled samples as a package takes them, batch by batch: of a folder of class folders, a table, or an archive of arrays.

Everything is read by the code that the package itself answers with, so that what is judged is what it will do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mapsto.cli.evaluate.texts import Texts, TrainedOn, labelled_texts, tagged_texts, trained_on
from mapsto.errors import DataError, MapstoError, SpecError, nearest
from mapsto_runtime.preprocessing import read
from mapsto_runtime.preprocessing.image_files import huge_allowed
from mapsto_runtime.preprocessing.texts import Text
from mapsto_runtime.regular_files import open_file, read_file
from mapsto_runtime.shown import few, short
from mapsto_runtime.signature import Preprocessing, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.preprocessing.raw_tables import RawTable

__all__ = ["TABLES", "Batch", "Domain", "columns_read", "domains_of", "opened"]

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_BATCH = 64
_ROWS = 4096
"""Rows of a table or an archive that are prepared at once."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples that could be read."""

    inputs: NDArray[Any]
    """Prepared, shape (n, ...)."""
    labels: Sequence[Any]
    """Names of classes, or rows of values, one for each."""
    sources: Sequence[str]
    """What each is called: a file, or a row."""
    files: Sequence[Path | None]
    """Of an image the file that shows it."""


@dataclass(kw_only=True)
class Domain:
    """A named collection of samples, and what was found while it was read."""

    name: str
    path: Path
    kind: str = ""
    """``images``, ``table``, ``texts`` or ``arrays``."""
    split: str | None = None
    """Which part of a folder of splits is judged."""
    target: str | None = None
    total: int = 0
    """Samples there are, those that cannot be read among them."""
    batches: Callable[[], Iterator[Batch]] = field(default=lambda: iter(()))
    sample: Callable[[int], NDArray[Any]] = field(default=lambda place: np.zeros(0))
    """The sample at a place as the network takes it, (...); places count those that could be read, in the order of `batches`."""
    text: Callable[[int], Text] = field(default=lambda place: "")
    """What was given there where it is a text, as far as that is known."""
    skipped: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """What could not be read, and why."""
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Height and width of images as they are in their files."""
    modes: Counter[str] = field(default_factory=Counter)
    """Pixel formats of images, as Pillow calls them."""


def domains_of(given: Sequence[str]) -> list[tuple[str, Path]]:
    """Names and paths of ``--data NAME=PATH`` or ``--data PATH``; a path's own name where none is given, made unlike the others.

    >>> domains_of(["day=photos/day", "photos/night", "more/night"])
    [('day', PosixPath('photos/day')), ('night', PosixPath('photos/night')), ('night 2', PosixPath('more/night'))]
    """
    found: dict[str, Path] = {}
    for text in given:
        name, sign, rest = text.partition("=")
        if not text or (sign and not Path(text).exists() and not (name and rest)):
            raise SpecError(f"'{text}' names no data", where="--data", hint="write PATH, or NAME=PATH")
        named = bool(sign) and not Path(text).exists()
        path = Path(rest if named else text)
        if named and name in found:
            raise SpecError(f"two data are named '{short(name)}'", where="--data", hint="give each its own name")
        title = name if named else _title_of(path)
        number = next(n for n in range(1, len(given) + 2) if (f"{title} {n}" if n > 1 else title) not in found)
        found[f"{title} {number}" if number > 1 else title] = path
    return list(found.items())


def _title_of(path: Path) -> str:
    """What data are called that have no name: by their file or folder, a data set of a recipe by its kind."""
    if str(path).startswith("{"):
        return str(path)[1:].partition(":")[0].strip()
    return path.stem if path.suffix.lower() in (*TABLES, ".npz") else path.name or str(path)


def opened(
    name: str,
    path: Path,
    signature: Signature,
    *,
    target: str | None,
    split: str | None,
    manifest: Mapping[str, Any] | None = None,
) -> Domain:
    """What lies at a path, to be read as a package with this signature reads it; its `manifest` may tell the columns.

    Raises
    ------
    DataError
        Nothing is there and it names no data set, it is empty, or it is of another kind than the package takes.
    SpecError
        The target is no column of the table, or cannot be told.
    """
    domain = Domain(name=name, path=path, split=split)
    suffix = path.suffix.lower()
    if path.is_dir():
        _open_folder(domain, signature)
    elif not path.exists():
        _open_named(domain, signature)
    elif signature.preprocessing.kind == "text" and signature.answers in ("labels", "values"):
        _open_texts(domain, labelled_texts(path, signature, target, trained_on(manifest or {})))
    elif signature.preprocessing.kind == "text" and signature.answers == "tags":
        _open_texts(domain, tagged_texts(path, signature, target, trained_on(manifest or {})))
    elif suffix in TABLES:
        _open_table(domain, signature, target, trained_on(manifest or {}))
    elif suffix == ".npz":
        _open_arrays(domain, signature)
    else:
        raise DataError(
            f"files of type '{suffix}' hold no labelled samples that are read here",
            where=str(path),
            hint="give a folder with a folder of images for each class, a table, or an .npz archive with inputs and labels",
        )
    if target is not None and domain.kind not in ("table", "texts"):
        raise SpecError("--target is a column of a table, and this is none", where=str(path), hint="leave --target out")
    return domain


def _open_named(domain: Domain, signature: Signature) -> None:
    """A data set as a recipe has it, such as ``digits`` or ``{cifar10: {split: test}}``, read as the package's network reads it."""
    from mapsto.cli.evaluate.data_sets import data_set
    from mapsto.search.compress import data_node

    where = str(domain.path)
    data = data_set(data_node(where), where=where)
    if signature.preprocessing.columns:
        raise DataError("the package takes rows of a table", where=where, hint="give the table's file")
    samples = data.read_for(signature.preprocessing).open()
    domain.kind, domain.total = "data set", len(samples)
    domain.notes += samples.notes
    domain.warnings += samples.warnings
    named = samples.labels.ndim == 1 and samples.labels.dtype.kind in "iu"
    labels = (
        [samples.classes[number] for number in samples.labels.tolist()]
        if named
        else _labels_of(samples.labels, None, signature, domain)
    )
    domain.batches = lambda: _slices(domain, samples.inputs, labels, signature)
    if signature.preprocessing.kind == "text":
        given = data.open().inputs
        if len(given) == len(samples.inputs) and given.dtype.kind in "UOT":
            domain.text = lambda place: _text_of(given[place])


# ------------------------------------------------------------------------------------------------------------------- images


def _open_folder(domain: Domain, signature: Signature) -> None:
    from mapsto.data.io.image_folder import listed, splits_in

    if signature.preprocessing.kind != "image":
        what = "rows of a table" if signature.preprocessing.columns else "arrays of numbers"
        raise DataError(
            f"the package takes {what}, and this is a folder",
            where=str(domain.path),
            hint="give a table with the columns that it was trained on, or an .npz archive",
        )
    splits = splits_in(domain.path)
    if splits and domain.split is None:
        domain.split = next((name for name in ("test", "validation", "train") if name in splits), None)
        others = [str(name) for name in splits if name != domain.split]
        domain.notes.append(
            f"{domain.path}: the split {domain.split} is judged" + (f", not {', '.join(others)}" if others else "")
        )
    listing = listed(domain.path, split=cast("Any", domain.split))
    domain.kind, domain.total = "images", len(listing.files)
    domain.notes += listing.notes
    domain.batches = lambda: _images(domain, listing.classes, listing.files, signature)


def _images(
    domain: Domain, classes: Sequence[str], files: Sequence[tuple[int, Path]], signature: Signature
) -> Iterator[Batch]:
    seen: list[Path] = []
    domain.sample = lambda place: _image(seen[place], signature)
    for start in range(0, len(files), _BATCH):
        inputs: list[NDArray[Any]] = []
        labels: list[str] = []
        kept: list[Path] = []
        with huge_allowed():
            for label, path in files[start : start + _BATCH]:
                try:
                    inputs.append(read(path, signature).samples)
                    _look_at(path, domain)
                except DataError as error:
                    domain.skipped.append({"source": str(path), "reason": error.what})
                    continue
                labels.append(classes[label])
                kept.append(path)
        seen += kept
        if kept:
            yield Batch(inputs=np.concatenate(inputs), labels=labels, sources=list(map(str, kept)), files=kept)


def _image(path: Path, signature: Signature) -> NDArray[Any]:
    with huge_allowed():
        return read(path, signature).samples[0]


def _look_at(path: Path, domain: Domain) -> None:
    """Size and mode as they stand in the file's head."""
    from PIL import Image

    try:
        with open_file(path) as file, Image.open(file) as image:
            domain.sizes[image.size[1], image.size[0]] += 1
            domain.modes[image.mode] += 1
    except (OSError, ValueError, SyntaxError):  # an .npy file among images, which was read
        domain.modes["array"] += 1


# ------------------------------------------------------------------------------------------------------------------- tables


def _open_texts(domain: Domain, found: Texts) -> None:
    """Texts with several labels, numbers or tagged words."""
    domain.kind, domain.total, domain.target = "texts", len(found.texts), found.target
    domain.notes += found.notes
    domain.warnings += found.warnings

    def batches() -> Iterator[Batch]:
        for start in range(0, len(found.texts), _ROWS):
            texts = found.texts[start : start + _ROWS]
            yield Batch(
                inputs=found.ids[start : start + _ROWS],
                labels=found.labels[start : start + _ROWS],
                sources=texts,
                files=[None] * len(texts),
            )

    domain.batches = batches
    domain.sample = lambda place: found.ids[place]
    domain.text = lambda place: found.given[place]


def _text_of(given: Any) -> Text:
    """A text, or the texts of a pair."""
    return str(given) if isinstance(given, str) else tuple(map(str, given))


def _open_table(domain: Domain, signature: Signature, target: str | None, told: TrainedOn) -> None:
    from mapsto.data.io.tables import read_table, target_of

    before, where = signature.preprocessing, str(domain.path)
    if before.kind == "image":
        raise DataError("the package takes images, and this is a table", where=where, hint="give a folder of images")
    if not before.columns and before.kind != "text":
        raise DataError(
            "the package knows no columns of a table, only rows of numbers",
            where=where,
            hint="give an .npz archive with inputs and labels",
        )
    known = columns_read(before)
    asked = target if target is not None else _target_known(signature, known, domain, told)
    table = read_table(domain.path, [asked])
    if asked in known:
        raise SpecError(
            f"the package predicts from column '{short(asked)}'",
            where="--target",
            hint=nearest(asked, [name for name in before.header if name not in known]),
        )
    if not len(table):
        raise DataError("there is not one row below the header", where=where, hint="add rows")
    held = target_of(table, asked, where=where)
    values = signature.answers == "values"
    if values:
        labels: list[Any] = held.numbers(where=where).astype(np.float64)[:, None].tolist()
        missing = held.missing("values")
    else:
        numbers, names = held.labels(where=where) if held.kind == "words" or held.fraction is None else _as_words(held)
        labels = [names[number] if number >= 0 else None for number in numbers.tolist()]
        missing = np.array([label is None for label in labels])
    if missing.any():
        count = int(missing.sum())
        rows = "1 row has" if count == 1 else f"{count} rows have"
        domain.warnings.append(f"{where}: {rows} no value in '{short(asked)}' and cannot be judged")
    domain.kind, domain.total, domain.target = "table", len(table), asked
    domain.batches = lambda: _rows(domain, labels, missing, signature)


def columns_read(before: Preprocessing) -> list[str]:
    """The columns of a table that a package reads: numbers and words, or texts."""
    if before.kind == "text":
        return list(before.header or ("text",))
    return [column.name for column in before.columns]


def _target_known(signature: Signature, known: Sequence[str], domain: Domain, told: TrainedOn) -> str:
    """The column that the package answers: its name where the package has it, else the only one that holds its classes."""
    left = [name for name in signature.preprocessing.header if name not in known]
    if len(left) == 1:
        return left[0]
    from mapsto.data.io.tables import read_table

    table = read_table(domain.path, [])
    names = [name for name in table.names or () if name not in known]
    if len(told.target) == 1 and told.target[0] in names:
        return told.target[0]
    classes = signature.classes or ()
    if signature.answers == "values":
        found = [name for name in classes if name in names] if len(classes) == 1 else []
    else:
        found = [name for name in names if _holds_classes(table, name, classes)]
    if len(found) == 1:
        domain.notes.append(
            f"{domain.path}: column '{short(found[0])}' is taken for the one that is predicted; --target names another"
        )
        return found[0]
    raise SpecError(
        "it is not known which column holds what is to be predicted",
        where=str(domain.path),
        hint="name it with --target: "
        + (few([short(name) for name in found or left or names], 20) or "there is no other column"),
    )


def _holds_classes(table: RawTable, name: str, classes: Sequence[str]) -> bool:
    """Whether most of a column's values are names of these classes."""
    from mapsto.data.io.tables import target_of

    try:
        words = target_of(table, name, where=name).words
    except DataError:  # dates, say
        return False
    there = [word for word in words if word is not None]
    return 2 * sum(word in classes for word in there) > len(there)


def _as_words(held: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Of a column of fractions where classes are asked for: the numbers as they are written."""
    words = [None if math.isnan(value) else f"{value:g}" for value in held.values.tolist()]
    names = tuple(sorted({word for word in words if word is not None}))
    return np.array([-1 if word is None else names.index(word) for word in words]), names


def _rows(domain: Domain, labels: Sequence[Any], missing: NDArray[np.bool_], signature: Signature) -> Iterator[Batch]:
    found = read(domain.path, signature)
    domain.notes += [note for note in found.notes if note not in domain.notes]
    for error in found.errors:
        domain.skipped.append({"source": str(domain.path), "reason": error.what})
    kept = [place for place, row in enumerate(found.numbers) if not missing[row]]
    domain.sample = lambda place: found.samples[kept[place]]
    domain.text = lambda place: found.texts[kept[place]] if found.texts else ""
    for start in range(0, len(kept), _ROWS):
        part = kept[start : start + _ROWS]
        rows = [found.numbers[place] for place in part]
        yield Batch(
            inputs=found.samples[part],
            labels=[labels[row] for row in rows],
            sources=[f"row {row + 1}" for row in rows],
            files=[None] * len(rows),
        )


# ------------------------------------------------------------------------------------------------------------------- arrays


def _open_arrays(domain: Domain, signature: Signature) -> None:
    where = str(domain.path)
    inputs, raw, names = _archive(domain.path)
    if len(inputs) != len(raw):
        raise DataError(f"{len(inputs)} inputs but {len(raw)} labels", where=where, hint="give one label an input")
    if not len(inputs):
        raise DataError("holds no samples", where=where, hint="give one sample or more")
    if signature.preprocessing.kind == "image" and inputs.ndim == 3:
        inputs = inputs[:, None]
    domain.kind, domain.total = "arrays", len(inputs)
    labels = _labels_of(raw, names, signature, domain)
    domain.batches = lambda: _slices(domain, inputs, labels, signature)


def _archive(path: Path) -> tuple[NDArray[Any], NDArray[Any], tuple[str, ...] | None]:
    """Inputs, labels and, where they are there, the names of the classes."""
    import io
    import zipfile
    import zlib

    try:
        with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as held:
            files: list[str] = list(held.files)
            inputs = next((name for name in ("inputs", "images", "x") if name in files), None)
            labels = next((name for name in ("labels", "targets", "y") if name in files), None)
            if inputs is None or labels is None:
                raise DataError(
                    f"holds the arrays {few(files) or 'none'}, not inputs and labels",
                    where=str(path),
                    hint="save it with numpy.savez(file, inputs=…, labels=…)",
                )
            names = tuple(map(str, held["classes"].tolist())) if "classes" in files else None
            found = held[inputs], held[labels]
    except (ValueError, OSError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"no plain archive of arrays ({error})", where=str(path), hint="save it with numpy.savez"
        ) from error
    for name, array in zip((inputs, labels), found, strict=True):
        if not array.ndim:
            raise DataError(
                f"'{name}' is one value, no array",
                where=str(path),
                hint="give inputs of shape (N, ...) and a label for each",
            )
    return *found, names


def _labels_of(raw: NDArray[Any], names: tuple[str, ...] | None, signature: Signature, domain: Domain) -> Sequence[Any]:
    where = str(domain.path)
    if signature.answers != "classes" and signature.classes is not None:
        values = raw.reshape(len(raw), -1).astype(np.float64)
        if values.shape[1] != len(signature.classes):
            raise DataError(
                f"labels have shape {raw.shape}, and the package gives {len(signature.classes)} numbers for a sample",
                where=where,
                hint="give as many for each sample",
            )
        if not np.isfinite(values).all():
            raise DataError("labels hold NaN or infinity", where=where, hint="drop the samples without a label")
        return values.tolist()
    if raw.ndim != 1 or not _are_classes(raw):
        raise DataError(
            f"labels have shape {raw.shape} and type {raw.dtype}, not one class for each sample",
            where=where,
            hint="give whole numbers or names, one for each sample",
        )
    if raw.dtype.kind in "US":
        return raw.astype(str).tolist()
    numbers = raw.astype(np.int64)
    known = names or signature.classes
    texts = list(map(str, numbers.tolist()))
    if names is None and (known is None or set(texts) <= set(known)):
        return texts
    if known is None or numbers.min() < 0 or numbers.max() >= len(known):
        raise DataError(
            f"labels run from {numbers.min()} to {numbers.max()}, and there are {len(known or ())} classes",
            where=where,
            hint="number them from 0 on, or give their names",
        )
    if names is None:
        told = ", ".join(f"{number} = {short(name)}" for number, name in list(enumerate(known))[:4])
        domain.warnings.append(
            f"{where}: labels are numbers, taken for places among the package's classes ({told}, …); "
            "where they mean others, give names as labels, or an array 'classes' with the name of each number"
        )
    return [known[number] for number in numbers.tolist()]


def _are_classes(raw: NDArray[Any]) -> bool:
    """Whether labels are names or whole numbers."""
    if raw.dtype.kind in "iuUSb":
        return True
    return raw.dtype.kind == "f" and bool((np.isfinite(raw) & (raw == np.floor(raw))).all())


def _slices(domain: Domain, inputs: NDArray[Any], labels: Sequence[Any], signature: Signature) -> Iterator[Batch]:
    step = _BATCH if signature.preprocessing.kind == "image" else _ROWS
    seen: list[int] = []
    domain.sample = lambda place: read(inputs[seen[place] : seen[place] + 1], signature).samples[0]
    for start in range(0, len(inputs), step):
        part = inputs[start : start + step]
        try:
            found = read(part, signature)
        except MapstoError as error:
            error.where = str(domain.path)
            raise
        if len(found.samples) + len(found.errors) != len(part):
            raise DataError(
                f"inputs of shape {inputs.shape} are not one sample each",
                where=str(domain.path),
                hint="give shape (N, ...)",
            )
        for error in found.errors:
            domain.skipped.append({"source": str(domain.path), "reason": error.what})
        rows = [start + number for number in found.numbers]
        seen += rows
        yield Batch(
            inputs=found.samples,
            labels=[labels[row] for row in rows],
            sources=[f"sample {row}" for row in rows],
            files=[None] * len(rows),
        )

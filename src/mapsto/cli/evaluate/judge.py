"""A package's answers to one domain, against what is right: figures, tables, and the answers that were most wrong."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from mapsto.cli.evaluate.episodes import needs_learner, on_unseen_tasks
from mapsto.cli.evaluate.examples import Batch, Domain, columns_read
from mapsto.cli.evaluate.explainer import FEW, Case, Explainer, few_of
from mapsto.data.sets.tags import words_between_blanks
from mapsto.errors import DataError, DomainError, StoreError, nearest
from mapsto.kinds import Metric, Table
from mapsto.nn.evaluate.calibration import calibrate, calibration, softmax
from mapsto.nn.evaluate.classification import confusion_counts, macro_metrics, per_class, share
from mapsto.nn.evaluate.labels import label_figures
from mapsto.nn.evaluate.regression import regression_metrics
from mapsto.nn.evaluate.tagging import tagging_figures
from mapsto.nn.export.training_digests import digests_of
from mapsto_runtime.preprocessing.texts import tokenizer_of
from mapsto_runtime.preprocessing.words import OUTSIDE, first_tokens, spans_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto_runtime.predictor import Predictor
    from mapsto_runtime.signature import Preprocessing

__all__ = ["Doc", "judged", "plain"]

Doc: TypeAlias = "dict[str, Any]"

_WORST = 12
_MOST_CONFUSED = 100
"""The table of confusions is left out where there are more classes."""
_THUMBNAIL = 144
_MOST_POINTS = 400
_MOST_COLUMNS = 8


def plain(value: Metric | Table) -> Doc:
    """A metric or a table as JSON."""
    return dataclasses.asdict(value)


def judged(
    predictor: Predictor,
    domain: Domain,
    *,
    advance: Callable[[int], None],
    worst: int = _WORST,
    explainer: Explainer | None = None,
) -> Doc:
    """What the package's answers to a domain came to, as JSON.

    Parameters
    ----------
    advance
        Is told how many more samples were read.
    worst
        How many of the most wrong answers are kept.
    explainer
        Explains a few answers, where they are to be explained.

    Raises
    ------
    DataError
        Not one sample can be judged: none could be read, or all are of classes that the package does not know.
    DomainError
        The package gives maps, for which there is no truth here.
    """
    signature = predictor.signature
    if signature.answers == "tags":
        return _of_tags(predictor, domain, advance, worst)
    if signature.is_dense:
        raise DomainError(
            "the package gives maps, and there are no maps here to compare them with",
            where=str(predictor.folder),
            hint="evaluate a package of classes, labels or values",
        )
    before = signature.preprocessing
    padding = before.padding if before.kind == "text" else None
    seen = _Seen(keeps_inputs=needs_learner(predictor), padding=padding)
    for batch in domain.batches():
        scores = predictor.outputs(batch.inputs).astype(np.float64)
        seen.add(batch, scores)
        advance(len(batch.labels))
    if not len(seen):
        first = f", as {domain.skipped[0]['source']}: {domain.skipped[0]['reason']}" if domain.skipped else ""
        raise DataError(
            f"not one of {domain.total} samples could be read{first}",
            where=str(domain.path),
            hint="give samples of the kind that the package takes",
        )
    scores = np.concatenate(seen.scores)
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).reshape(len(scores), -1).all(1))[0])
        raise DomainError(
            f"its model gives NaN or infinity for {seen.sources[row]}",
            where=str(predictor.folder),
            hint="look for extreme values in the input, or export the package again",
        )
    if signature.classes is not None and scores.shape[1:] != (len(signature.classes),):
        raise StoreError(
            f"its model gives scores of shape {scores.shape[1:]} for {len(signature.classes)} classes",
            where=str(predictor.folder),
            hint="export the package again",
        )
    found: Doc = {"data": _data(domain, seen)}
    if signature.classes is None:
        inputs = np.concatenate(seen.inputs) if seen.inputs is not None else None
        features = scores.reshape(len(scores), -1)
        return found | on_unseen_tasks(predictor, features, seen.labels, inputs, where=str(domain.path))
    by_kind = {"classes": _of_classes, "labels": _of_labels, "values": _of_values}
    judged_so = by_kind[signature.answers](seen, scores, signature.classes, domain, signature.preprocessing, worst)
    few_cases: list[Case] = judged_so.pop("_few")
    if explainer is not None:
        judged_so["explained"] = explainer.of(few_cases, domain)
    return {**found, "kind": signature.answers, **judged_so}


class _Seen:
    """What was read and answered so far."""

    def __init__(self, *, keeps_inputs: bool, padding: int | None) -> None:
        self._padding = padding
        self.inputs: list[NDArray[Any]] | None = [] if keeps_inputs else None
        self.scores: list[NDArray[np.float64]] = []
        self.labels: list[Any] = []
        self.sources: list[str] = []
        self.files: list[Path | None] = []
        self.digests: list[str] = []

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, batch: Batch, scores: NDArray[np.float64] | None = None) -> None:
        if scores is not None:
            self.scores.append(scores)
        self.labels += batch.labels
        self.sources += batch.sources
        self.files += batch.files
        self.digests += digests_of(batch.inputs, padding=self._padding)
        if self.inputs is not None:
            self.inputs.append(batch.inputs)


def _data(domain: Domain, seen: _Seen) -> Doc:
    """What was judged: counts, fingerprint, duplicates."""
    named = not seen.labels or isinstance(seen.labels[0], str)
    pairs = sorted(f"{digest} {label}" for digest, label in zip(seen.digests, seen.labels, strict=True))
    labels_of: dict[str, set[str]] = {}
    for digest, label in zip(seen.digests, seen.labels, strict=True):
        labels_of.setdefault(digest, set()).add(str(label))
    return {
        "samples": len(seen),
        "classes": dict(sorted(Counter(cast("list[str]", seen.labels)).items())) if named else {},
        "fingerprint": hashlib.sha256("\n".join(pairs).encode()).hexdigest(),
        "duplicates": len(seen) - len(labels_of),
        "contradictions": sum(len(labels) > 1 for labels in labels_of.values()) if named else 0,
        "_digests": seen.digests,
        "skipped": len(domain.skipped),
        "sizes": {f"{width} × {height}": count for (height, width), count in domain.sizes.most_common()},
        "modes": dict(domain.modes.most_common()),
    }


# ------------------------------------------------------------------------------------------------------------------ classes


def _of_classes(
    seen: _Seen,
    scores: NDArray[np.float64],
    classes: Sequence[str],
    domain: Domain,
    preprocessing: Preprocessing,
    worst: int,
) -> Doc:
    numbers = _numbers_of(seen.labels, classes, domain)
    known = numbers >= 0
    probabilities = softmax(scores)
    found: Doc = {"unknown": _unknown(seen.labels, known, probabilities, classes)}
    labels, own = numbers[known], probabilities[known]
    predicted = own.argmax(1)
    right = predicted == labels
    counts = confusion_counts(labels, predicted, len(classes))
    there = counts.sum(1) > 0
    absent = [name for name, here in zip(classes, there.tolist(), strict=True) if not here]
    metrics = {"accuracy": share(int(right.sum()), len(right)), **macro_metrics(counts)}
    most = int(counts.sum(1).max())
    metrics["most_frequent"] = Metric(value=100 * most / len(right), unit="%", n=len(right))
    if len(classes) > 5:
        top = np.argsort(-own, axis=1, kind="stable")[:, :5]
        metrics["top_5"] = share(int((top == labels[:, None]).any(1).sum()), len(right))
    sure = calibration(own, labels)
    table = per_class(counts, classes)
    found |= {
        "metrics": {name: plain(metric) for name, metric in metrics.items()},
        "per_class": {
            **plain(table),
            "rows": [row for row, here in zip(table.rows, there.tolist(), strict=True) if here],
        },
        "confusion": _confusion(counts, classes),
        "absent_classes": absent,
        "calibration": {
            "metrics": {name: plain(metric) for name, metric in sure.metrics.items()},
            "bins": plain(sure.bins),
            "temperature": {name: plain(metric) for name, metric in calibrate(scores[known], labels).items()},
        },
    }
    if int(there.sum()) == 1:
        only = classes[int(np.flatnonzero(there)[0])]
        domain.warnings.append(
            f"{domain.path}: all samples are of the class '{short(only)}', so that accuracy is its recall alone; give samples of "
            "the other classes too"
        )
    order = np.argsort(own[np.arange(len(labels)), labels], kind="stable")
    chosen = [int(place) for place in order if not right[place]][:worst]
    places = np.flatnonzero(known)
    found["worst"] = [
        {
            "source": seen.sources[places[place]],
            "label": classes[labels[place]],
            "answer": classes[predicted[place]],
            "confidence": round(float(own[place].max()), 4),
            "of_label": round(float(own[place, labels[place]]), 4),
            "_place": int(places[place]),
        }
        for place in chosen
    ]
    _show(found["worst"], seen, domain, preprocessing)
    found["_few"] = [
        Case(
            place=int(places[place]),
            target=int(predicted[place]),
            right=bool(right[place]),
            told={
                "source": seen.sources[places[place]],
                "label": classes[labels[place]],
                "answer": classes[predicted[place]],
                "confidence": round(float(own[place].max()), 4),
            },
        )
        for place in few_of(right, own.max(1), predicted)
    ]
    return found


def _numbers_of(labels: Sequence[str], classes: Sequence[str], domain: Domain) -> NDArray[np.int64]:
    """The package's number of each sample's class, -1 for a class that it does not know."""
    numbers = {name: number for number, name in enumerate(classes)}
    alike = {_folded(name): number for name, number in numbers.items()}
    taken: list[str] = []
    for name in dict.fromkeys(labels):
        number = alike.get(_folded(name))
        if name not in numbers and number is not None:
            numbers[name] = number
            taken.append(f"'{short(name)}' for '{short(classes[number])}'")
    if taken:
        domain.notes.append(f"{domain.path}: the class {few(taken)} is taken, which differs in case or spaces alone")
    found = np.array([numbers.get(name, -1) for name in labels], np.int64)
    others = sorted({name for name in labels if name not in numbers})
    if others and not (found >= 0).any():
        raise DataError(
            f"the package knows none of its classes ({_quoted(others)})",
            where=str(domain.path),
            hint=f"its classes are {_quoted(classes, 10)}; "
            f"of '{short(others[0])}': {nearest(others[0], classes, most=5)}",
        )
    if others:
        count = int((found < 0).sum())
        domain.warnings.append(
            f"{domain.path}: {count} sample{'s' if count > 1 else ''} of {len(others)} "
            f"class{'es' if len(others) > 1 else ''} that the package does not know "
            f"({_quoted(others)}): counted apart, not judged"
        )
    return found


def _quoted(names: Sequence[str], most: int = 5) -> str:
    return few([f"'{short(name)}'" for name in names], most)


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _unknown(
    labels: Sequence[str], known: NDArray[np.bool_], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> list[Doc]:
    """Classes that the package does not know: how many samples, what they are mostly taken for, and how surely."""
    found: list[Doc] = []
    names = np.array(labels, object)
    for name in sorted({label for label, here in zip(labels, known.tolist(), strict=True) if not here}):
        own = probabilities[names == name]
        answers = Counter(own.argmax(1).tolist())
        number, count = answers.most_common(1)[0]
        found.append(
            {
                "class": name,
                "samples": len(own),
                "taken_for": classes[number],
                "share_percent": round(100 * count / len(own), 2),
                "confidence": round(float(own.max(1).mean()), 4),
            }
        )
    return found


def _confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Doc | None:
    if len(classes) > _MOST_CONFUSED:
        return None
    rows = [[name, *row] for name, row in zip(classes, counts.tolist(), strict=True)]
    return {"columns": ["label \\ predicted", *classes], "rows": rows, "units": {}}


# ------------------------------------------------------------------------------------------------------------------- labels


def _of_labels(
    seen: _Seen,
    scores: NDArray[np.float64],
    classes: Sequence[str],
    domain: Domain,
    preprocessing: Preprocessing,
    worst: int,
) -> Doc:
    """Labels that stand by themselves, each judged at 0.5."""
    truth = np.array(seen.labels, np.float64) > 0.5
    given = scores > 0
    figures = label_figures(truth, given, classes)
    metrics = {
        "accuracy": share(int((given == truth).sum()), truth.size),
        "all_right": share(figures.exact, len(truth)),
    }
    metrics |= {
        name: Metric(value=value, unit="%", n=len(truth))
        for name, value in (("micro_f1", figures.micro_f1), ("macro_f1", figures.macro_f1))
    }
    wrong = (given != truth).sum(1)
    chosen = [int(place) for place in np.argsort(-wrong, kind="stable") if wrong[place]][:worst]

    def told(place: int) -> Doc:
        label, answer = (
            ", ".join(name for name, there in zip(classes, row, strict=True) if there) or "none"
            for row in (truth[place], given[place])
        )
        return {"source": seen.sources[place], "label": label, "answer": answer}

    cases = [{**told(place), "_place": place} for place in chosen]
    _show(cases, seen, domain, preprocessing)
    # Of a wrong answer the label that is wrong most surely, of a right one the surest label that was given.
    targets = np.where(wrong[:, None] > 0, np.where(given != truth, np.abs(scores), -np.inf), scores).argmax(1)
    sure = np.abs(scores)[np.arange(len(scores)), targets]
    few_cases = [
        Case(place=place, target=int(targets[place]), right=not wrong[place], told=told(place))
        for place in few_of(wrong == 0, sure, targets)
    ]
    table = plain(figures.per_label)
    return {
        "metrics": {name: plain(metric) for name, metric in metrics.items()},
        "per_class": {**table, "columns": ["class", *table["columns"][1:]]},
        "worst": cases,
        "_few": few_cases,
    }


# --------------------------------------------------------------------------------------------------------------------- tags


def _of_tags(predictor: Predictor, domain: Domain, advance: Callable[[int], None], worst: int) -> Doc:
    """Words with a tag each, and the spans that they make; a word behind the longest length that is read counts as untagged."""
    classes = predictor.signature.classes or ()
    seen = _Seen(keeps_inputs=False, padding=predictor.signature.preprocessing.padding)
    given: list[list[str]] = []
    for batch in domain.batches():
        scores = predictor.outputs(batch.inputs)
        seen.add(batch)
        given += [_tags_of(text, row, predictor) for text, row in zip(batch.sources, scores, strict=True)]
        advance(len(batch.labels))
    figures = tagging_figures(seen.labels, given, known=classes)
    right, there, said = (
        sum(counts) for counts in (zip(*figures.per_label.values(), strict=True) if figures.per_label else ((),) * 3)
    )
    shares = {"span_f1": figures.f1, "span_precision": 100 * right / max(said, 1)}
    shares["span_recall"] = 100 * right / max(there, 1)
    metrics = {name: Metric(value=value, unit="%", n=there) for name, value in shares.items()}
    metrics["words_right"] = share(figures.right, figures.words)
    wrong = np.array(
        [sum(one != two for one, two in zip(*each, strict=True)) for each in zip(seen.labels, given, strict=True)]
    )
    chosen = [int(place) for place in np.argsort(-wrong, kind="stable") if wrong[place]][:worst]
    columns = ("precision", "recall", "f1")
    return {
        "data": _data(domain, seen),
        "kind": "tags",
        "metrics": {name: plain(metric) for name, metric in metrics.items()},
        "per_class": {
            "columns": ["class", *columns, "support"],
            "rows": [
                [row["label"], *(round(float(row[name]), 2) for name in columns), row["support"]]
                for row in figures.rows()
            ],
            "units": dict.fromkeys(columns, "%"),
        },
        "worst": [
            {
                "source": short(seen.sources[place]),
                "label": _spans_in_words(seen.sources[place], seen.labels[place], classes),
                "answer": _spans_in_words(seen.sources[place], given[place], classes),
            }
            for place in chosen
        ],
    }


def _tags_of(text: str, scores: NDArray[Any], predictor: Predictor) -> list[str]:
    """The tag of each word of a text with blanks between, from scores (tags, tokens)."""
    classes = list(predictor.signature.classes or ())
    encoding = tokenizer_of(predictor.signature.preprocessing).encode(text)
    best = scores.argmax(0)
    return [
        str(classes[int(best[token])]) if 0 <= token < len(best) else OUTSIDE
        for token in first_tokens(encoding.offsets, words_between_blanks(text))
    ]


def _spans_in_words(text: str, tags: Sequence[str], known: Sequence[str]) -> str:
    words = text.split(" ")
    spans = [f"{' '.join(words[first:end])} ({label})" for first, end, label in spans_of(tags, known=known)]
    return "; ".join(spans) or "none"


# ------------------------------------------------------------------------------------------------------------------- values


def _of_values(
    seen: _Seen,
    scores: NDArray[np.float64],
    classes: Sequence[str],
    domain: Domain,
    preprocessing: Preprocessing,
    worst: int,
) -> Doc:
    truth = np.array(seen.labels, np.float64)
    outputs: list[Doc] = []
    for number, name in enumerate(classes):
        answers, values = scores[:, number], truth[:, number]
        shown = np.linspace(0, len(values) - 1, min(_MOST_POINTS, len(values))).round().astype(int)
        error = answers - values
        heights, edges = np.histogram(error, bins=min(24, max(5, len(error) // 8)))
        outputs.append(
            {
                "name": name,
                "metrics": {key: plain(metric) for key, metric in regression_metrics(answers, values).items()},
                "points": {"value": values[shown].tolist(), "answer": answers[shown].tolist()},
                "residuals": {"edges": edges.tolist(), "counts": heights.tolist()},
            }
        )
    error = np.abs(scores - truth) / np.maximum(truth.std(0), 1e-12)

    def told(place: int) -> Doc:
        label, answer = (", ".join(f"{value:.5g}" for value in row[place]) for row in (truth, scores))
        return {"source": seen.sources[place], "label": label, "answer": answer}

    furthest = np.argsort(-error.max(1), kind="stable").tolist()
    cases: list[Doc] = [{**told(place), "_place": place} for place in furthest[:worst]]
    _show(cases, seen, domain, preprocessing)
    half = min(FEW, (len(furthest) + 1) // 2)
    few_cases = [
        Case(place=place, target=int(error[place].argmax()), right=number >= half, told=told(place))
        for number, place in enumerate([*furthest[:half], *furthest[half:][: -FEW - 1 : -1]])
    ]
    first = outputs[0]["metrics"]
    metrics = first if len(outputs) == 1 else _together(outputs)
    return {"metrics": metrics, "outputs": outputs, "worst": cases, "_few": few_cases}


def _together(outputs: Sequence[Doc]) -> Doc:
    """The metrics of each output by its name."""
    return {f"{each['name']} {name}": metric for each in outputs for name, metric in each["metrics"].items()}


# -------------------------------------------------------------------------------------------------------------------- worst


def _show(cases: Sequence[Doc], seen: _Seen, domain: Domain, preprocessing: Preprocessing) -> None:
    """Adds a picture to each case of images, the cells of its row to each of a table."""
    if not cases:
        return
    if domain.kind == "texts":
        for case in cases:
            case["source"] = short(case["source"])
    if domain.kind == "table":
        _add_cells(cases, domain, preprocessing)
    for case in cases:
        place = case.pop("_place")
        if preprocessing.kind != "image":
            continue
        file = seen.files[place]
        picture = _thumbnail(file) if file is not None else _of_input(domain.sample(place), preprocessing)
        if picture is not None:
            case["picture"] = f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _add_cells(cases: Sequence[Doc], domain: Domain, preprocessing: Preprocessing) -> None:
    from mapsto.data.io.tables import read_table

    table = read_table(domain.path, [])
    names = list(table.names or ())
    known = columns_read(preprocessing)
    for case in cases:
        row = int(str(case["source"]).rpartition(" ")[2]) - 1
        cells = {name: table.columns[names.index(name)][row] for name in known if name in names}
        case["cells"] = {
            name: "" if cell is None else short(str(cell)) for name, cell in list(cells.items())[:_MOST_COLUMNS]
        }


def _thumbnail(file: Path) -> bytes | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None  # as an .npy file, which has no picture of its own
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _png(image)


def _of_input(given: NDArray[Any], preprocessing: Preprocessing) -> bytes:
    from PIL import Image

    mean, std = (np.array(each, np.float64).reshape(-1, 1, 1) for each in (preprocessing.mean, preprocessing.std))
    pixels = (255 * (given * std + mean)).round().clip(0, 255).astype(np.uint8)
    return _png(Image.fromarray(pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]))


def _png(image: Any) -> bytes:
    """The pixels alone: Pillow would write a profile, and what else it has read, into the file."""
    file = io.BytesIO()
    image.info.clear()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()

"""Whether samples that are judged are among those that a package was made with: by its own record, or by its run's recipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from mapsto import discovery
from mapsto.cli.evaluate.data_sets import data_set
from mapsto.cli.evaluate.subjects import TRAINING, Subject
from mapsto.data.io.download import offline
from mapsto.errors import MapstoError
from mapsto.kinds import Dataset
from mapsto.kinds.canonical import dumps
from mapsto.nn.export.training_digests import FILE, Known, digests_of_raw, known_of, read_known

__all__ = ["chosen_by", "known_to", "seen_in"]

_MOST_SAMPLES = 100_000
"""Data sets of more samples are not opened to compare them."""


def known_to(subject: Subject) -> Known | str:
    """What the package was made with; or why that is not known."""
    file = subject.predictor.checked.files.get(FILE)
    if file is not None and (known := read_known(file)) is not None:
        return known
    if subject.report is None:
        return "the package keeps no record of what it was made with"
    return _of_recipe(subject, subject.report, judged_by=False)


def chosen_by(subject: Subject) -> Known | None:
    """The validation data by which steps of the run decided, as when to stop; None where they are not known."""
    found = None if subject.report is None else _of_recipe(subject, subject.report, judged_by=True)
    return found if isinstance(found, Known) else None


def _of_recipe(subject: Subject, report: dict[str, Any], *, judged_by: bool) -> Known | str:
    """The samples of the data sets of a run's recipe, as far as they are on this machine; or why they are not known."""
    digests: list[str] = []
    preprocessing = subject.predictor.signature.preprocessing
    try:
        with offline():
            for data in _data_of_steps(report, judged_by=judged_by):
                samples = data.read_for(preprocessing).open()
                if len(samples) > _MOST_SAMPLES:
                    return f"the run's training data are {len(samples):,} samples, too many to compare"
                digests += digests_of_raw(samples.inputs, preprocessing)
    except (MapstoError, OSError) as error:
        return f"the run's training data are not at hand ({error})"
    if not digests:
        return "the run's recipe names no training data"
    return known_of(digests, len(digests))


def seen_in(known: Known | str, digests: Sequence[str], kind: str, *, where: str) -> tuple[dict[str, Any], list[str]]:
    """What the card says of it, and a warning where samples were seen before; of a table (`kind`) other rows may hold the same."""
    if isinstance(known, str):
        return {"absent": known}, []
    count = known.count_in(digests)
    told = {"training_samples": known.samples, "seen": count, "share_percent": round(100 * count / len(digests), 2)}
    if not count:
        return told, []
    if kind == "table":
        what = "all rows hold" if count == len(digests) else f"{count} of {len(digests)} rows hold"
        return told, [
            f"{where}: {what} the values of rows that the package was made with; if they are the same rows, its figures are too good"
        ]
    what = "all samples are" if count == len(digests) else f"{count} of {len(digests)} samples are"
    return told, [
        f"{where}: {what} among those that the package was made with, so that its figures here are too good; give others"
    ]


def _data_of_steps(report: dict[str, Any], *, judged_by: bool) -> Iterator[Dataset]:
    """Each data set that a step learnt from, or (`judged_by`) was judged by, once."""
    found: dict[str, dict[str, Any]] = {}
    for step in report["steps"]:
        if str(step["name"]).partition(".")[0] in TRAINING and step["kind"] != "observe":
            for node in _nodes({key: value for key, value in step["fields"].items() if _only_looks(key) is judged_by}):
                found[dumps(node)] = node
    for node in found.values():
        yield data_set(node, where="the run's recipe")


def _only_looks(field: str) -> bool:
    """Whether data of a field are judged by and not learnt from."""
    return field.startswith(("val", "test"))


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """The outermost data sets in the fields of a step, as a recipe writes them; of tasks those that they are drawn from."""
    if isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _nodes(each)
    if not isinstance(value, dict):
        return
    tree = cast("dict[str, Any]", value)
    name = next(iter(tree), "")
    known = discovery.entries("data")
    found = discovery.find("data", name) if name in known and len(tree) == 1 else None
    if found is not None and issubclass(found, Dataset):
        yield tree
        return
    for each in tree.values():
        yield from _nodes(each)

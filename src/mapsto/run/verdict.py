"""Whether a step has ruined a network: what it is compared on, and what is said of the outcome.

Every ``quantize.*``, ``prune.*``, ``distill.*`` and ``export.*`` is compared with what it was given, by the executor alone: on labelled
validation data where a field of the step, or of one before it, has them; else by agreement on the inputs of the step's own
data, or of one before it. Test data are never used. The figures stand in the step's record as measured values, outside its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as AbcMapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from mapsto.kinds import Dataset, Frozen, Package, Tasks
from mapsto.mapping import Chain, Fork, Labelled, Mapping, Observe, Ref, fields_of
from mapsto.process import Process

__all__ = ["Ground", "Said", "compares", "grounds", "judged", "of_package", "teacher_of", "trains"]

_FAMILIES = ("quantize", "prune", "distill", "export")
_LEAST_AGREEMENT = 90.0


@dataclass(frozen=True)
class Ground:
    """Samples that two networks can be compared on."""

    data: Any
    """A data set, tasks, or a reference to one."""
    labelled: bool
    what: str
    """As people say it."""


@dataclass(frozen=True)
class Said:
    """What is to be said of a comparison."""

    level: Literal["warning", "note"]
    text: str


def compares(mapping: Mapping[Any, Any]) -> bool:
    """Whether what a mapping gives is compared with what it was given: by the family in its name."""
    return mapping.name.partition(".")[0] in _FAMILIES


def trains(mapping: Mapping[Any, Any]) -> bool:
    """Whether a mapping, or a part of it, changes weights by learning, from labels or from another network."""
    if isinstance(mapping, Chain):
        return any(trains(step) for step in mapping.steps)
    if isinstance(mapping, Labelled):
        return trains(mapping.mapping)
    if isinstance(mapping, Fork):
        return any(trains(branch) for branch in mapping.branches.values())
    if isinstance(mapping, Observe):
        return False
    return isinstance(mapping, Process) or teacher_of(mapping) is not None


def teacher_of(mapping: Mapping[Any, Any]) -> Any:
    """The field that a mapping learns from another network by: its `teacher`, or the first of its `teachers`."""
    fields = fields_of(mapping)
    several = fields.get("teachers")
    return several[0] if isinstance(several, tuple) and several else fields.get("teacher")


def grounds(mapping: Mapping[Any, Any], earlier: Iterable[Mapping[Any, Any]]) -> Iterator[Ground]:
    """What a step's result can be compared on, the best first; `earlier` are the steps before it, the nearest first."""
    upstream = [step for step in earlier if not step.name.startswith(("evaluate.", "choose."))]
    fields, others = _fields(mapping), [field for step in upstream for field in _fields(step)]
    for name, value in (*fields, *others):
        if "validation" in name and not _is_test(value):
            yield Ground(value, True, "validation tasks" if isinstance(value, Tasks) else "validation data")
    for name, value in fields:
        if "validation" not in name:
            learns = trains(mapping) and not _is_test(value)
            labelled = learns or isinstance(value, Tasks)
            what = (
                "tasks" if isinstance(value, Tasks) else "the data it learns from" if learns else "calibration inputs"
            )
            yield Ground(value, labelled, f"its {what}" if what == "tasks" else what)
    for name, value in others:
        if "validation" not in name and not _is_test(value):
            what = "tasks" if isinstance(value, Tasks) else "inputs"
            yield Ground(value, isinstance(value, Tasks), f"{what} of an earlier step")


def _fields(mapping: Any) -> list[tuple[str, Any]]:
    """Data sets and tasks in a mapping's fields, by name; in those of mappings that are its fields too."""
    fields: list[tuple[str, Any]] = []
    for name, value in fields_of(mapping).items():
        if isinstance(value, (Dataset, Tasks)) or (isinstance(value, Ref) and ("data" in name or "tasks" in name)):
            fields.append((name, value))
        elif isinstance(value, Mapping) and name not in ("teacher", "rule"):
            fields += _fields(value)
    return fields


def _is_test(value: Any) -> bool:
    """Whether a data set, or one that it is made of, is a test split."""
    if isinstance(value, Frozen):
        fields = fields_of(value)
        return fields.get("split") in ("test", "evaluation") or any(_is_test(part) for part in fields.values())
    return isinstance(value, (tuple, list)) and any(_is_test(part) for part in cast("Iterable[Any]", value))


def of_package(package: Package) -> dict[str, Any]:
    """How a package's answers agree with the network's, from the parity report in its manifest."""
    parity = cast("dict[str, Any]", package.manifest().get("parity") or {})
    top1, mean, spread = parity.get("top1_agreement"), parity.get("mean_abs_difference"), parity.get("output_std")
    if top1 is not None:
        agreement, answers = 100 * float(top1), "classes"
    elif mean is not None and spread:
        agreement, answers = 100 * max(0.0, 1 - float(mean) / float(spread)), "values"
    else:
        return {"reason": "its parity report holds no figures"}
    return {
        "n": parity.get("samples", 0),
        "answers": answers,
        "agreement": round(agreement, 3),
        "on": "data" if parity.get("on") == "data" else "random inputs",
        "against": "the network in PyTorch",
    }


_AT_THE_END = "at the end of the recipe, compared with the network before it was made smaller"
_ANSWERS = {
    "classes": "gives the same class for {:.1f} %",
    "labels": "agrees in {:.1f} % of the labels given",
    "values": "keeps {:.1f} % of the variance of the values",
    "maps": "keeps {:.1f} % of the variance of the outputs",
    "embeddings": "gives embeddings that agree to {:.1f} % (mean cosine)",
}


def judged(figures: AbcMapping[str, Any], *, followed: bool, final: bool = False) -> Said | None:
    """What a comparison comes to, if there is anything to say.

    Parameters
    ----------
    followed
        Whether training follows, which may mend it: then it is only a note.
    final
        Whether it is the last network against the first trained one.
    """
    if "reason" in figures:
        return None
    text = _loss(figures)
    if text is None:
        return None
    against = figures.get("against", "what the step was given")
    text = f"{text} ({_AT_THE_END if final else f'compared with {against}'})"
    return Said("note", f"{text}; training follows") if followed else Said("warning", text)


def _loss(figures: AbcMapping[str, Any]) -> str | None:
    where = f"on {figures['n']} {figures.get('unit', 'samples')} of {figures.get('on', 'data')}"
    accuracy = figures.get("accuracy")
    if accuracy is not None:
        if accuracy["drop"] <= max(2.0, 2 * accuracy["se"]):
            return None
        of = "accuracy" if accuracy["of"] == "accuracy" else "the explained share of variance"
        return f"{of} fell from {_percent(accuracy['before'])} to {_percent(accuracy['after'])} % {where}"
    if figures["agreement"] >= _LEAST_AGREEMENT:
        return None
    if "agreement_before" in figures and figures["agreement"] > figures["agreement_before"]:
        return None  # learning brings it nearer to its teacher; the end of the recipe says how near it came
    return f"{_ANSWERS[figures['answers']].format(figures['agreement'])} {where}"


def _percent(value: float) -> str:
    return f"{value:.1f}" if value > -1000 else "far below 0"

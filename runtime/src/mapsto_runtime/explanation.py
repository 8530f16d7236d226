"""Why a package answers as it does: how much each word, column or place of an image speaks for its answer.

    explained(Predictor("runs/demo"), ["seven.png"]).found[0].scores

By default by occlusion, which asks the package alone (`mapsto_runtime.occlusion`); whoever has gradients gives another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from mapsto_runtime.errors import DataError, DomainError, MapstoError, nearest
from mapsto_runtime.occlusion import log_odds, occlusion
from mapsto_runtime.parts import Baseline, Cells, Columns, Parts, Words, parts_of
from mapsto_runtime.predictor import Predictor
from mapsto_runtime.preprocessing import Input, name_of, read
from mapsto_runtime.preprocessing.texts import Text
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Explained", "Explanation", "Way", "explained", "explanation_of", "require_explainable"]

_Found: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.float64] | None]"
Way: TypeAlias = "Callable[[NDArray[Any], Parts, int], _Found]"
"""(prepared sample (1, ...), its parts, place of the output) → score of each part, and of an image of each pixel (H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What speaks for one answer."""

    source: str
    """The file's name, or how a text begins."""
    index: int
    """The sample's place in it, counted from 0."""
    target: str
    """The class, label or value that is explained."""
    score: float
    """Log-odds of the class, or the value itself."""
    without: float
    """The same where everything is hidden."""
    way: str
    """How the parts were scored."""
    is_value: bool
    """Whether a value is explained, and not the log-odds of a class."""
    sample: NDArray[Any]
    """As the network takes it, (1, ...)."""
    parts: Parts
    scores: NDArray[np.float64]
    """How much each part speaks for the target, shape (parts,), in the unit of `score`; below 0 against it."""
    pixels: NDArray[np.float64] | None = None
    """Of an image the same for each pixel, (H, W)."""

    def strongest(self, top: int) -> list[tuple[str, float]]:
        """The parts with the largest scores, for or against, and their scores; the largest first."""
        names = self.parts.names
        return [(names[place], float(self.scores[place])) for place in self.order(top)]

    def order(self, top: int) -> list[int]:
        """The places of the parts with the largest scores, for or against; the largest first."""
        import numpy as np

        return np.argsort(-np.abs(self.scores), kind="stable")[:top].tolist()

    def plain(self) -> dict[str, Any]:
        """As JSON: of texts and rows every part in order, of images the table of cells."""
        import numpy as np

        tree: dict[str, Any] = {
            "target": self.target,
            "score": float(f"{self.score:.4g}"),
            "without": float(f"{self.without:.4g}"),
            "way": self.way,
        }
        values = [float(f"{score:.4g}") for score in self.scores]
        if isinstance(self.parts, Cells):
            tree["cell"] = self.parts.size
            return tree | {"cells": np.array(values).reshape(self.parts.grid).tolist()}
        if isinstance(self.parts, Columns):
            held = zip(self.parts.names, self.parts.values, values, strict=True)
            return tree | {"columns": [{"name": name, "value": value, "score": score} for name, value, score in held]}
        kind = "words" if isinstance(self.parts, Words) else "tokens"
        return tree | {
            kind: [{"name": name, "score": score} for name, score in zip(self.parts.names, values, strict=True)]
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Explanations of the samples that could be read, and what is wrong with the others."""

    found: list[Explanation]
    errors: list[MapstoError]
    notes: list[str]


def require_explainable(predictor: Predictor, target: str | None = None) -> None:
    """Raises `DomainError` for a package whose answers have no one score, or that does not know the `target`."""
    signature, where = predictor.signature, str(predictor.folder)
    if signature.is_dense or signature.answers == "tags":
        what = "a map" if signature.is_dense else "a tag for each word"
        raise DomainError(
            f"its answer is {what}, which has no one score to explain",
            where=where,
            hint="give a package that tells classes, labels or values",
        )
    if signature.classes is None:
        raise DomainError(
            "it gives embeddings, not classes, so that there is no answer to explain",
            where=where,
            hint="make a classifier of it first, from labelled examples",
        )
    if target is not None and target not in signature.classes:
        remedy = nearest(target, signature.classes) if len(signature.classes) < 100 else "give one of its classes"
        raise DomainError(f"it does not know '{short(target)}'", where=where, hint=remedy)


def explained(
    predictor: Predictor,
    inputs: Sequence[Input],
    *,
    target: str | None = None,
    baseline: Baseline = "mean",
    way: Way | None = None,
    name: str = "occlusion",
) -> Explained:
    """What speaks for the answer to each sample, or for `target` where one is named.

    Parameters
    ----------
    predictor
        The package.
    inputs
        As for `Predictor.predict`.
    target
        A class, label or value; by default the answer: the class or label of the highest score, or the first value.
    baseline
        What stands where a part of an image is hidden.
    way, name
        Another way than occlusion, and what it is called.

    Raises
    ------
    DomainError
        See `require_explainable`.
    """
    require_explainable(predictor, target)
    signature, answers = predictor.signature, Explained(found=[], errors=[], notes=[])
    for given in inputs:
        try:
            read_input = read(given, signature)
        except DataError as error:
            answers.errors.append(error)
            continue
        answers.errors.extend(read_input.errors)
        answers.notes.extend(read_input.notes)
        for place, number in enumerate(read_input.numbers):
            sample = read_input.samples[place : place + 1]
            text = read_input.texts[place] if read_input.texts else ""
            try:
                found = explanation_of(
                    predictor, sample, text=text, target=target, baseline=baseline, way=way, name=name
                )
            except DomainError as error:
                answers.errors.append(error)
                continue
            answers.found.append(replace(found, source=name_of(given), index=number))
    return answers


def explanation_of(
    predictor: Predictor,
    sample: NDArray[Any],
    *,
    text: Text = "",
    target: str | None = None,
    baseline: Baseline = "mean",
    way: Way | None = None,
    name: str = "occlusion",
) -> Explanation:
    """What speaks for the answer to one prepared sample (1, ...), of a package that `require_explainable` lets pass.

    `text` is what was given where it is a text; the others are as those of `explained`.

    Raises
    ------
    DomainError
        The sample has no parts, or the answer is not finite.
    """
    import numpy as np

    parts = parts_of(sample[0], predictor.signature, text=text, baseline=baseline)
    kind, classes = predictor.signature.answers, predictor.signature.classes or ()
    outputs = predictor.outputs(sample)
    if not np.isfinite(outputs).all():
        raise DomainError(
            "its model gives NaN or infinity for this input",
            where="the explanation",
            hint="look for extreme values in the input, or export the package again",
        )
    place = classes.index(target) if target is not None else 0 if kind == "values" else int(outputs[0].argmax())

    def score(given: NDArray[Any]) -> NDArray[np.float64]:
        return log_odds(predictor.outputs(given), place, kind)

    whole = float(log_odds(outputs, place, kind)[0])
    count = len(parts.names)
    if not count:
        raise DomainError("it has no part that could be hidden", where="the explanation", hint="give words")
    scores, pixels = way(sample, parts, place) if way is not None else (occlusion(parts, score, whole=whole), None)
    return Explanation(
        source="",
        index=0,
        target=classes[place],
        score=whole,
        without=float(score(parts.without(np.ones((1, count), np.bool_)))[0]),
        way=name,
        is_value=kind == "values",
        sample=sample,
        parts=parts,
        scores=scores,
        pixels=pixels,
    )

"""Explains a few answers for the card: which words, columns or places of an image they rest on, and which labelled examples.

By occlusion, which asks the package alone, so that an int8 package is explained as it will answer (`mapsto_runtime.occlusion`).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mapsto.errors import DataError, DomainError, StoreError, TrustError
from mapsto_runtime.explanation import Explanation, explanation_of, require_explainable
from mapsto_runtime.heat_map import overlay, png
from mapsto_runtime.parts import Cells
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.cli.evaluate.examples import Domain
    from mapsto.cli.evaluate.subjects import Subject
    from mapsto.cli.explained_network import Examples

__all__ = ["FEW", "Case", "Explainer", "few_of"]

Doc: TypeAlias = "dict[str, Any]"

FEW = 4
"""Answers that are explained of the wrong ones, and of the right ones."""
_SIDE = 160
"""Pixels of the longer side of a picture."""
_EXAMPLE = 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """An answer that is explained."""

    place: int
    """Of the sample in its domain."""
    target: int
    """Number of the class, label or value that is explained."""
    right: bool
    """Of values: whether it is among those that came closest."""
    told: Doc
    """What the card says of it: source, label, answer."""


def few_of(
    right: NDArray[np.bool_], sure: NDArray[np.float64], answers: NDArray[np.int64], most: int = FEW
) -> list[int]:
    """Places of the surest wrong answers, then of right ones: the surest of each class before a second of any.

    >>> few_of(np.array([True, True, True, False]), np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 1, 0, 0]), most=2)
    [3, 0, 2]
    """
    order = np.argsort(-sure, kind="stable")
    wrong, well = order[~right[order]], order[right[order]]
    _, firsts = np.unique(answers[well], return_index=True)
    first = np.isin(np.arange(len(well)), firsts)
    return [*wrong[:most].tolist(), *np.concatenate([well[first], well[~first]])[:most].tolist()]


class Explainer:
    """Explains answers of one package, and names examples where the run that adapted it is at hand."""

    def __init__(self, subject: Subject) -> None:
        self._predictor = subject.predictor
        self.notes: list[str] = []
        self.absent = ""
        """Why there are no explanations; empty where there are some."""
        self._examples: Examples | None = None
        try:
            require_explainable(subject.predictor)
        except DomainError as error:
            self.absent = error.what
        else:
            self._examples = self._kept_examples(subject)

    def _kept_examples(self, subject: Subject) -> Examples | None:
        from mapsto.cli.explained_network import Examples, behind, is_adapted

        place = subject.folder if subject.folder.parent == subject.run else subject.run
        if not is_adapted(place):
            return None
        try:
            return Examples(behind(place), where=str(place))
        except (DataError, DomainError, StoreError, TrustError) as error:
            self.notes.append(f"{place}: the examples that answers rest on are not named: {error}")
            return None

    def of(self, cases: Sequence[Case], domain: Domain) -> list[Doc]:
        """Explanations of answers to a domain as JSON; a sample that has none is noted there."""
        if self.absent:
            return []
        found: list[Doc] = []
        classes = self._predictor.signature.classes or ()
        for case in cases:
            text = domain.text(case.place)
            try:
                explanation = explanation_of(
                    self._predictor, domain.sample(case.place)[None], text=text, target=classes[case.target]
                )
            except DomainError as error:
                source = short(str(case.told["source"]))
                domain.notes.append(f"{domain.path}: the answer to {source} is not explained: {error.what}")
                continue
            found.append(
                {
                    **case.told,
                    "source": short(str(case.told["source"]), 200),
                    "right": case.right,
                    "explanation": explanation.plain() | {"value": explanation.is_value},
                    **self._seen(explanation),
                }
            )
        return found

    def _seen(self, explanation: Explanation) -> Doc:
        """Of an image its picture, of an adapted network its examples."""
        seen: Doc = {}
        if isinstance(explanation.parts, Cells):
            parts = explanation.parts
            laid = overlay(parts.picture, explanation.scores.reshape(parts.grid), side=_SIDE)
            seen["picture"] = _uri(png(laid))
        if self._examples is not None:
            answer, against, lead, rest, examples = self._examples.of(explanation.sample)
            seen["support"] = {
                "answer": answer,
                "against": against,
                "lead": float(f"{lead:.4g}"),
                "rest": float(f"{rest:.4g}"),
                "how": self._examples.said(),
                "examples": [
                    {**each.plain(), **({"picture": _small(each.picture)} if each.picture is not None else {})}
                    for each in examples
                ],
            }
        return seen


def _uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _small(pixels: NDArray[np.uint8]) -> str:
    """An example's pixels (C, H, W), as a thumbnail."""
    step = max(1, -(-max(pixels.shape[1:]) // _EXAMPLE))
    colours = pixels[:, ::step, ::step].transpose(1, 2, 0)
    return _uri(png(np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))))

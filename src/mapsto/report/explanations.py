"""Explanations of answers as one page, and as pictures: what speaks for an answer is red, what speaks against it blue."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.report import page
from mapsto.report.template_environment import environment
from mapsto_runtime.explanation import Explanation
from mapsto_runtime.heat_map import overlay, png
from mapsto_runtime.parts import Cells, Columns, Tokens, Words
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Answer", "SupportView", "facts", "picture_of", "render"]

_TOP = 20
"""Columns of a table that are listed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer and its explanation."""

    title: str
    said: str
    """The answer in words."""
    explanation: Explanation
    support: SupportView | None = None


@dataclass(frozen=True, kw_only=True)
class SupportView:
    """The labelled examples that an answer rests on."""

    said: str
    examples: list[tuple[str, str, float, float, NDArray[np.uint8] | None]]
    """Name, class, part of the lead, likeness, and of an image its pixels (C, H, W)."""


def picture_of(explanation: Explanation) -> bytes | None:
    """The image beside itself with scores laid over it, as a PNG; None where it is no image."""
    parts = explanation.parts
    if not isinstance(parts, Cells):
        return None
    scores = explanation.scores.reshape(parts.grid) if explanation.pixels is None else explanation.pixels
    return png(overlay(parts.picture, scores))


def render(answers: Sequence[Answer]) -> str:
    """The page, which needs no other file and no network."""
    return environment().get_template("explanation.html.j2").render(answers=[_shown(each) for each in answers])


def _shown(answer: Answer) -> dict[str, Any]:
    found = answer.explanation
    picture = picture_of(found)
    names, scores = found.parts.names, found.scores
    strength = _strength(scores)
    words = isinstance(found.parts, (Words, Tokens))
    return {
        "title": short(answer.title, 200),
        "said": answer.said,
        "facts": facts(found),
        "picture": f"{page._PNG}{base64.b64encode(picture).decode()}" if picture is not None else "",
        "words": [
            {"text": name, "share": f"{100 * abs(each):.0f}%", "against": each < 0, "score": f"{score:+.3g}"}
            for name, each, score in zip(names, strength, scores, strict=True)
        ]
        if words
        else [],
        "support": _support(answer.support),
        "table": None if words or picture is not None else _table(found),
    }


def _support(view: SupportView | None) -> dict[str, Any] | None:
    if view is None:
        return None
    rows = [[name, label, part, likeness] for name, label, part, likeness, _ in view.examples]
    pictures = [
        {
            "uri": f"{page._PNG}{base64.b64encode(png(_colours(pixels))).decode()}",
            "said": f"{short(label, 30)}: {part:+.3g}",
            "name": short(Path(name).name, 40),
        }
        for name, label, part, _, pixels in view.examples
        if pixels is not None
    ]
    table = page._view({"columns": ["example", "class", "part", "likeness"], "rows": rows})
    return {"said": view.said, "pictures": pictures, "table": None if pictures else table}


def _colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import numpy as np

    return np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3))


def facts(found: Explanation) -> str:
    """What is explained, and how, in a sentence."""
    return f"Explained is {short(found.target)}: {found.score:.3g} as it is, {found.without:.3g} with everything hidden, by {found.way}."


def _strength(scores: NDArray[np.float64]) -> list[float]:
    import numpy as np

    return (scores / (float(np.abs(scores).max(initial=0.0)) or 1.0)).tolist()


def _table(found: Explanation) -> page.View:
    names, scores = found.parts.names, found.scores.tolist()
    values = found.parts.values if isinstance(found.parts, Columns) else ("",) * len(names)
    rows = [[names[place], short(values[place], 60), scores[place]] for place in found.order(_TOP)]
    return page._view({"columns": ["column", "value", "speaks for it by"], "rows": rows})

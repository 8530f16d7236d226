"""An explanation in words, as ``mapsto predict`` and ``mapsto-predict`` show it on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mapsto_runtime.explanation import Explanation
from mapsto_runtime.parts import Cells, Columns
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["lines"]

_TOP = 8
"""Words or columns that are listed."""
_FOR, _AGAINST = " ░▒▓█", " -="


def lines(explanation: Explanation) -> Iterator[str]:
    """What speaks most for the answer, for the screen: a table of words or columns, of an image its cells as shades."""
    unit = "value" if explanation.is_value else "log-odds"
    yield (
        f"    {short(explanation.target, 40)}: {explanation.score:+.2f}, with everything hidden {explanation.without:+.2f} "
        f"({unit}, by {explanation.way})"
    )
    if isinstance(explanation.parts, Cells):
        yield from (f"      {row}" for row in _drawn(explanation.scores.reshape(explanation.parts.grid)))
        return
    names, scores = explanation.parts.names, explanation.scores.tolist()
    values = explanation.parts.values if isinstance(explanation.parts, Columns) else None
    strongest = explanation.order(_TOP)
    shown = [
        short(names[place], 40) + (f" = {short(values[place], 30)}" if values is not None else "")
        for place in strongest
    ]
    width = max(map(len, shown), default=0)
    most = max((abs(scores[place]) for place in strongest), default=0.0) or 1.0
    for name, place in zip(shown, strongest, strict=True):
        bar = ("+" if scores[place] > 0 else "-") * round(16 * abs(scores[place]) / most)
        yield f"      {name:<{width}}  {scores[place]:+8.3f}  {bar}"


def _drawn(scores: NDArray[Any]) -> Iterator[str]:
    """Cells as shades: what speaks for the answer from ░ to █, what speaks against it - and =.

    >>> import numpy as np
    >>> list(_drawn(np.array([[1.0, 0.3], [0.0, -1.0]])))
    ['██░░', '  ==']
    """
    most = float(abs(scores).max(initial=0.0)) or 1.0
    for row in scores / most:
        yield "".join(_shade(value) for value in row.tolist())


def _shade(value: float) -> str:
    shades = _FOR if value > 0 else _AGAINST
    return 2 * shades[min(len(shades) - 1, int(abs(value) * len(shades)))]

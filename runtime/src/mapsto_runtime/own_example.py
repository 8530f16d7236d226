"""The example that a package carries of itself: an input, and some of the numbers that its model gave for it when it was exported.

A copy that is damaged, a runtime that computes otherwise or preprocessing that changed is told by it before anything else is answered. The
input is an image file of the package, or a pattern that is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapsto_runtime.signature import Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PATTERN", "described", "differences", "pattern"]

PATTERN: Final = "pattern"
"""As an example's input: what `pattern` gives."""
_MOST: Final = 16
"""Outputs that are kept, spread over all of them: enough to tell another model, and few enough that a CPU's last bits, which might turn one
of their two digits, hardly ever show in a package's digest."""
_SHARE, _SPREADS, _PARITIES = 0.1, 0.25, 4.0
"""What is let pass: so much of a number itself, of the spread of outputs and of the greatest difference at the export."""


def pattern(signature: Signature) -> NDArray[Any]:
    """An input of one sample: numbers from -2 to 2, or ids in turn.

    >>> from mapsto_runtime.signature import Preprocessing, TensorSpec
    >>> spec = TensorSpec(name="x", dtype="float32", shape=("N", 5))
    >>> pattern(Signature(inputs=(spec,), outputs=(spec,), preprocessing=Preprocessing(kind="none"))).round(2).tolist()
    [[-2.0, -0.5199999809265137, 0.9599999785423279, -1.600000023841858, -0.11999999731779099]]
    """
    spec, shape = signature.inputs[0], signature.input_shape(1)
    steps = np.arange(math.prod(shape))
    if not np.issubdtype(np.dtype(spec.dtype), np.floating):
        most = min(spec.ids, default=2)
        return (steps % most).reshape(shape).astype(spec.dtype)
    return (((37 * steps) % 101 - 50) / 25).reshape(shape).astype(spec.dtype)


def described(name: str, outputs: NDArray[Any]) -> dict[str, Any]:
    """What a manifest says of an example: its input, a file's name or `PATTERN`, and some of its outputs to two digits."""
    return {"input": name, "outputs": [float(f"{float(value):.2g}") for value in _some(outputs)]}


def differences(example: Mapping[str, Any], parity: Mapping[str, Any], outputs: NDArray[Any]) -> tuple[int, int]:
    """How many of an example's outputs are not what they were at the export, beyond what other processors explain; and of how many.

    Parameters
    ----------
    example, parity
        Of the manifest: what `described` gave, and the parity report with its ``output_std`` and ``max_abs_difference``.
    """
    wanted, given = np.array(example["outputs"], np.float64), _some(outputs)
    if wanted.shape != given.shape:
        return len(wanted), len(wanted)
    slack = _SPREADS * float(parity.get("output_std") or 0) + _PARITIES * float(parity.get("max_abs_difference") or 0)
    wrong = ~(np.abs(given - wanted) <= _SHARE * np.abs(wanted) + slack + 1e-6)  # NaN is wrong
    return int(wrong.sum()), len(wanted)


def _some(outputs: NDArray[Any]) -> NDArray[np.float64]:
    flat = np.asarray(outputs, np.float64).ravel()
    return flat[np.linspace(0, len(flat) - 1, min(_MOST, len(flat))).astype(int)]

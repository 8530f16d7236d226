"""Whether a network gives a sample one score for each class of the data, which is asked before its scores are judged."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.data.checks import require_alike
from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.network.dense_outputs import refuse_dense

__all__ = ["require_class_scores"]


def require_class_scores(value: Network, classes: Sequence[str], *, where: str) -> None:
    """Raises `DomainError` for dense outputs, a learner, and other numbers than scores of these classes; `DataError` for another order."""
    signature = value.signature
    refuse_dense(signature, where=where)
    outputs = signature.outputs[0].shape[-1]
    if value.adaptation is not None or signature.answers != "classes" or outputs != len(classes):
        raise DomainError(
            f"the network gives {outputs} numbers, not scores of {len(classes)} classes",
            where=where,
            hint="adapt it first (adapt.centroid, adapt.linear), or give data with its classes",
        )
    require_alike(signature.classes, classes, where=where)

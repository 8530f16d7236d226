"""Several networks as one `Network`, which is evaluated, attacked, stored and exported as any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mapsto.errors import DomainError
from mapsto.kinds import Factory, Network, Preprocessing
from mapsto.nn.network.serialization import encode_edit

__all__ = ["ensemble_of"]


def ensemble_of(members: Sequence[Network], *, where: str) -> Network:
    """The network whose probabilities are the mean of the members' (`mapsto.nn.networks.ensemble`).

    Images are normalised as the first member takes them, and then anew for members that take them otherwise. Raises `DomainError` for
    members of other classes, inputs or sizes, and for learners.
    """
    first = members[0]
    for number, member in enumerate(members, 1):
        _require_alike(first, member, where=f"{where}: number {number}")
    parts: list[dict[str, Any]] = []
    for member in members:
        factor, shift = _between(first.signature.preprocessing, member.signature.preprocessing)
        parts.append(
            {
                "arch": {"name": member.arch.name, "arguments": member.arch.arguments},
                "edits": [encode_edit(edit) for edit in member.edits],
                "factor": factor,
                "shift": shift,
            }
        )
    tensors = {
        f"members.{number}.{name}": tensor
        for number, member in enumerate(members)
        for name, tensor in member.tensors.items()
    }
    arch = Factory(name="mapsto.nn.networks.ensemble:ensemble", arguments={"members": parts})
    return Network(arch=arch, tensors=tensors, signature=first.signature, assets=first.assets)


def _require_alike(first: Network, member: Network, *, where: str) -> None:
    """Raises `DomainError` where a mean of probabilities means nothing."""
    ours, theirs = first.signature, member.signature
    before, other = ours.preprocessing, theirs.preprocessing
    found = None
    if member.adaptation is not None or theirs.answers != "classes" or theirs.is_dense:
        found = "it gives no scores of classes"
    elif ours.classes != theirs.classes or ours.outputs[0].shape != theirs.outputs[0].shape:
        found = "it is for other classes"
    elif (before.kind, before.channels, before.size) != (other.kind, other.channels, other.size):
        found = f"it takes {other.kind} of {other.channels} × {other.size}, the first {before.kind} of {before.channels} × {before.size}"
    elif before.kind != "image" and before != other:
        found = "it encodes its input otherwise"
    if found is not None:
        raise DomainError(found, where=where, hint="give classifiers of the same classes and inputs")


def _between(first: Preprocessing, other: Preprocessing) -> tuple[list[float], list[float]]:
    """Factor and shift by channel from inputs as `first` normalises them to inputs as `other` does.

    >>> halves = [Preprocessing(channels=1, size=(1, 1), mean=(mean,), std=(std,)) for mean, std in ((0.0, 1.0), (0.5, 0.25))]
    >>> _between(*halves), _between(halves[0], halves[0])
    (([4.0], [-2.0]), ([1.0], [0.0]))
    """
    if first.kind != "image" or (first.mean, first.std) == (other.mean, other.std):
        return [1.0], [0.0]
    mean, std, their_mean, their_std = (
        torch.tensor(values, dtype=torch.float64) for values in (first.mean, first.std, other.mean, other.std)
    )
    return (std / their_std).tolist(), ((mean - their_mean) / their_std).tolist()

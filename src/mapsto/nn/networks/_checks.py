"""What the factories share: checks of their arguments, and the head by the common convention."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mapsto.errors import DomainError

__all__ = ["at_least", "classifier_of", "one_of"]


def at_least(value: int, least: int, *, name: str, where: str) -> None:
    """Raises `DomainError` unless `value` is a whole number from `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DomainError(f"{name} is {value!r}", where=where, hint=f"give a whole number from {least}")


def one_of(value: object, allowed: Sequence[object], *, name: str, where: str) -> None:
    """Raises `DomainError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise DomainError(f"{name} is {value!r}", where=where, hint=f"give one of {', '.join(map(str, allowed))}")


def classifier_of(embedding: int, classes: int | None) -> nn.Module:
    """A linear layer of `classes` outputs, or the identity for an embedding."""
    if classes is None:
        return nn.Identity()
    at_least(classes, 1, name="classes", where="network")
    return nn.Linear(embedding, classes)

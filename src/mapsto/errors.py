"""Every error that mapsto raises on purpose; they are those of `mapsto_runtime.errors`, where the tree is drawn."""

from __future__ import annotations

from mapsto_runtime.errors import (
    ComposeError,
    DataError,
    DomainError,
    MapstoError,
    MissingExtra,
    SpecError,
    StepError,
    StoreError,
    TrustError,
    carrying,
    command,
    is_environment_error,
    nearest,
    trouble,
)

__all__ = [
    "ComposeError",
    "DataError",
    "DomainError",
    "MapstoError",
    "MissingExtra",
    "SpecError",
    "StepError",
    "StoreError",
    "TrustError",
    "carrying",
    "command",
    "is_environment_error",
    "nearest",
    "trouble",
]

"""What optional runtimes share: how they are imported, silence while a converter works, and their errors in our words."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import warnings
from collections.abc import Generator
from typing import Any

from mapsto_runtime.errors import DomainError, MissingExtra

__all__ = ["operator_in", "optional", "quiet", "unable"]


_PLACE = re.compile(r"\s*(Exception from src/|Check '.*' failed at src/)")
"""Lines that say where in a runtime's own source it stopped."""
_OPERATOR = re.compile(r"\b(?:aten|prims|quantized\w*|torchao)(?:::|\.)\w+(?:\.\w+)?|(?<=failed for: )[\w.,: -]+")
"""An operator of PyTorch by its name, or those that OpenVINO sums up."""


def optional(module: str, extra: str, *, where: str, distribution: str = "mapsto-runtime") -> Any:
    """A module that an extra brings. Raises `MissingExtra` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        command = f"pip install '{distribution}[{extra}]'"
        raise MissingExtra(str(error.name), extra, where=where, command=command) from error


def unable(title: str, error: BaseException, where: str) -> DomainError:
    r"""The error for what the runtime called `title` cannot compute: the operator, and the first line of its own words.

    >>> print(unable("LiteRT", RuntimeError("Types differ:\n\nOperator: <Overload: aten.abs.default>"), "export.litert"))
    export.litert: LiteRT cannot run this network, for its operator aten.abs.default: Types differ; leave the layer ...
    """
    text = str(error)
    lines = [line.strip(" \t:") for line in text.splitlines() if line.strip() and not _PLACE.match(line)]
    reason = lines[0] if lines else type(error).__name__
    return DomainError(
        f"{title} cannot run this network{operator_in(text)}: {reason}",
        where=where,
        hint="leave the layer with that operator in float (skip), quantize in another way, or use export.onnx",
    )


def operator_in(text: str) -> str:
    """``, for its operator NAME`` of the first operator that an error names; empty without one."""
    found = _OPERATOR.search(text)
    return f", for its operator {found[0].strip()}" if found else ""


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Without notices about kernels of other hardware and about deprecated calls of its own."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

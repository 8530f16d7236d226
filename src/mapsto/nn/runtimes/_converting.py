"""What runtimes with a converter of their own share: silence while it works, and its errors in our words."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Generator

from mapsto.errors import DomainError

__all__ = ["quiet", "unable"]


def unable(title: str, error: BaseException, where: str) -> DomainError:
    """The error for what the runtime called `title` cannot compute, by the first line of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return DomainError(
        f"{title} cannot run this network: {lines[0] if lines else type(error).__name__}",
        where=where,
        hint="leave the layer with that operator in float (skip), quantize in another way, or use export.onnx",
    )


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

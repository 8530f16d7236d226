"""Products by one thread: where BLAS shares one among several, their number decides its last bits, and a machine's cores what is learnt."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

__all__ = ["one_thread"]


def one_thread() -> AbstractContextManager[Any]:
    """Within the block NumPy's and SciPy's products use one thread. It costs some 50 µs."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    """Of the libraries that are loaded; SciPy brings one of its own."""
    from threadpoolctl import ThreadpoolController  # scikit-learn stands on it

    importlib.import_module("scipy.linalg.blas")
    return ThreadpoolController()

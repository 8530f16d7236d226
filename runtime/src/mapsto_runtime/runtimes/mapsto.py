"""mapsto itself, for what no other runtime holds, as river's trees: the host has to have it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto_runtime.errors import MissingExtra

if TYPE_CHECKING:
    from mapsto_runtime.runtimes import Run
    from mapsto_runtime.signature import Signature

NAME: str = "mapsto"
TITLE: str = "mapsto"
MODEL: str = "model/model.json"


def load(files: Mapping[str, Path], *, threads: int = 1, signature: Signature | None = None) -> Run:
    """The model that learnt from a stream, opened as in training, on one thread.

    Raises `MissingExtra` where mapsto, or a library that the model's learner needs, is not installed.
    """
    try:
        hosted: Any = importlib.import_module("mapsto.nn.online.hosted")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise MissingExtra(
            missing, "", where="this package answers by mapsto itself", command="pip install mapsto"
        ) from error
    return hosted.opened(files)

"""A network from someone else's weights: a factory and a file of tensors, loaded without unpickling any code.

``θ ← file``: a ``.pt``, ``.pth`` or ``.th`` file by ``torch.load(weights_only=True)``, or a ``.safetensors`` file; nothing else is
tried. The ``module.`` that data-parallel training puts before names, and a nesting under ``state_dict`` or ``model``, are seen through.
Reference: PyTorch documentation, "torch.load" (weights_only), 2024.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from mapsto.errors import DataError, TrustError
from mapsto.kinds import Network, Preprocessing
from mapsto.mapping import Context, DataSource, Mapping

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint"]

_NESTS = ("state_dict", "model_state_dict", "model", "net")


class Checkpoint(Mapping[None, Network]):
    """The factory's network with the file's tensors; it enters keys by the file's content, not by its path."""

    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
    """``package.module:callable``; one outside mapsto needs ``--trust package``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What the factory is called with; JSON values."""
    file: str
    """The file of tensors: a path, or a path inside the data folder."""
    strip_prefix: str | None = None
    """What is cut off the tensors' names; None: ``module.`` where all have it."""
    channels: int | None = Field(default=None, ge=1, le=3)
    """Channels of its input images; by default those of `data`, else 3."""
    size: int | None = Field(default=None, ge=1)
    """Height and width of its input images, pixels; by default those of `data`, else 32."""
    mean: tuple[float, ...] | None = None
    """By channel, after division by 255, as in the weights' own training; by default those of `data`, else 0."""
    std: tuple[float, ...] | None = None
    """By channel, after division by 255, as in the weights' own training; by default those of `data`, else 1."""
    data: DataSource | None = None
    """A data set that gives class names, and the form of the input where the fields above do not."""
    classes: tuple[str, ...] | None = None
    """Names of its outputs; by default those of `data`."""

    contract: ClassVar[dict[str, Any]] = {"factory": "mapsto.nn.networks.conv4:conv4", "file": "weights.pt"}
    exempt: ClassVar[dict[str, str]] = dict.fromkeys(
        ("input unchanged and deterministic", "output kind as declared", "saved loaded and run again agree"),
        "it needs a file of someone else's; its own tests write one",
    )

    def fingerprint(self) -> str:
        """SHA-256 of the file's content."""
        from mapsto.data.fingerprint import file_digest

        return file_digest(self._path())

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DataError` for a missing or broken file, `TrustError` for one with code, `DomainError` for a misfit."""
        from mapsto.nn.preprocess import prepare
        from mapsto.nn.source import network_of

        size = (self.size, self.size) if self.size else (32, 32)
        reading = Preprocessing(channels=self.channels or 3, size=size)
        samples = ctx.dataset(self.data, for_=reading) if self.data is not None else None
        given = {
            "channels": self.channels,
            "size": (self.size, self.size) if self.size else None,
            "mean": self.mean,
            "std": self.std,
        }
        preprocessing = dataclasses.replace(
            samples.preprocessing if samples is not None else Preprocessing(),
            **{name: entry for name, entry in given.items() if entry is not None},
        )
        images = preprocessing.kind == "image"
        return network_of(
            self.factory,
            self.arguments,
            preprocessing,
            classes=self.classes or (samples.classes if samples is not None else None),
            tensors=_with_counters(self._tensors()),
            example=prepare(samples.inputs[:2], preprocessing) if samples is not None and not images else None,
        )

    def _path(self) -> Path:
        from mapsto.data.folder import locate

        return locate(self.file, what="the checkpoint")

    def _tensors(self) -> dict[str, Tensor]:
        import torch

        path = self._path()
        tree = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
        for nest in _NESTS:
            inner = tree.get(nest)
            if isinstance(inner, dict):
                tree = cast("dict[str, Any]", inner)
                break
        tensors = {str(name): value for name, value in tree.items() if isinstance(value, torch.Tensor)}
        if not tensors:
            raise DataError("it holds no tensors by name", where=str(path), hint="save module.state_dict()")
        prefix = self.strip_prefix
        if prefix is None:
            prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _with_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files of PyTorch before 0.4.1 lack batch norm's count of batches, which no forward pass uses."""
    import torch

    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
    counters = {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
    return {**counters, **tensors}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(f"not a whole safetensors file: {error}", where=str(path), hint="fetch it again") from error


def _torch(path: Path) -> dict[str, Any]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Detected pickle protocol"
            )  # the file is refused or fine all the same
            tree: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL [\w.]+|Unsupported operand \d+", str(error))
        raise TrustError(
            f"refused: it holds code or objects besides tensors, or is damaged ({found.group() if found else 'not weights only'})",
            where=str(path),
            hint="ask for a state_dict or a .safetensors file; nothing of it was executed",
        ) from error
    except (EOFError, RuntimeError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        reason = (
            str(error).partition(". ")[0] if isinstance(error, (RuntimeError, OSError)) else "it is no file of tensors"
        )
        raise DataError(f"not a whole checkpoint: {reason}"[:300], where=str(path), hint="fetch it again") from error
    if not isinstance(tree, dict):
        raise DataError(
            f"it holds a {type(tree).__name__}, not tensors by name", where=str(path), hint="save module.state_dict()"
        )
    return cast("dict[str, Any]", tree)

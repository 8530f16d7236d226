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

from pydantic import Field, PositiveFloat, PositiveInt

from mapsto.context import Context
from mapsto.errors import DataError, DomainError, TrustError
from mapsto.kinds import Network, Preprocessing, Samples
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint"]

_NESTS = ("state_dict", "model_state_dict", "model", "net")


class Checkpoint(Mapping[None, Network]):
    """The factory's network with the file's tensors; it enters keys by the file's content, not by its path."""

    version: ClassVar[int] = 2

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
    input: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1)
    """Shape of one input, as (1, 49, 10); by default that of `data`. For images (channels, height, width)."""
    mean: tuple[float, ...] | None = None
    """By channel, after division by 255, as in the weights' own training; by default those of `data`, else 0."""
    std: tuple[PositiveFloat, ...] | None = None
    """By channel, after division by 255, as in the weights' own training; by default those of `data`, else 1."""
    data: DataSource | None = None
    """A data set that gives class names, and the form of the input where the fields above do not."""
    classes: tuple[str, ...] | None = None
    """Names of its outputs; by default those of `data`, unless it gives a map for each sample."""
    output: str | int | None = None
    """Which of its outputs is taken, where it gives several: a name, or a place from 0; None: the only one, or ``logits``."""

    contract: ClassVar[dict[str, Any]] = {"factory": "mapsto.nn.networks.conv4:conv4", "file": "weights.pt"}
    exempt: ClassVar[dict[str, str]] = dict.fromkeys(
        ("input unchanged and deterministic", "output kind as declared", "saved loaded and run again agree"),
        "it needs a file of someone else's; its own tests write one",
    )

    def fingerprint(self) -> str:
        """SHA-256 of the file's content."""
        from mapsto.data.io.fingerprint import file_digest

        return file_digest(self._path())

    def apply(self, value: None, ctx: Context) -> Network:
        """Raises `DataError` for a missing or broken file, `TrustError` for one with code, `DomainError` for a misfit."""
        from mapsto.nn.network.build import network_of
        from mapsto.nn.network.preprocessing_check import doubt

        samples = ctx.dataset(self.data, for_=self._reading()) if self.data is not None else None
        preprocessing = self._preprocessing(samples)
        network = network_of(
            self.factory,
            self.arguments,
            preprocessing,
            classes=self.classes,
            data_classes=samples.classes if samples is not None else None,
            tensors=_with_counters(self._tensors()),
            example=self._example(samples, preprocessing),
            output=self.output,
            note=ctx.note,
        )
        if preprocessing.kind == "image" and (self.mean is None or self.std is None):
            ctx.warn(_guessed(preprocessing, samples is not None, self._size_is_guessed(samples)))
        if samples is not None and any(column.std != 1 for column in preprocessing.columns):
            self._tell_of_scale(network, samples, ctx)
        doubts = doubt(network, samples, ctx.random("doubt")) if samples is not None else None
        if doubts is not None:
            ctx.warn(doubts)
        return network

    def _tell_of_scale(self, network: Network, samples: Samples, ctx: Context) -> None:
        """Say that a table's columns are scaled by its own rows, and which way of reading them the network is right with."""
        from mapsto.data.sets.table import Table
        from mapsto.kinds import Dataset
        from mapsto.nn.network.preprocessing_check import readings

        text = "the table's columns are scaled by the mean and standard deviation of its own rows"
        remedy = "give the table with scale: false, as in --data '{table: {file: rows.csv, target: y, scale: false}}'"
        data = ctx.resolve(self.data, Dataset)
        found = None
        if isinstance(data, Table):
            plain = dataclasses.replace(data, scale=False).open()
            found = readings(network, samples, plain, ctx.random("scale"))
        if found is None or abs(found.plain - found.scaled) <= 2 * found.error:
            ctx.warn(f"{text}: for a network that learnt from raw columns {remedy}")
            return
        figures = (
            f"{found.scaled:.3g} % of {found.rows} rows are right so, {found.plain:.3g} % with the columns as they are"
        )
        if found.plain > found.scaled:
            ctx.warn(f"{text}, and the network seems to have learnt from raw columns: {figures}; {remedy}")
        else:
            ctx.note(f"{text}: {figures}")

    def _size_is_guessed(self, samples: Samples | None) -> bool:
        return samples is None and self.input is None and (self.size is None or self.channels is None)

    def _reading(self) -> Preprocessing:
        """How image files are read for it."""
        if self.input is not None and len(self.input) == 3:
            channels, *size = self.input
            return Preprocessing(channels=3 if channels > 1 else 1, size=(size[0], size[1]))
        return Preprocessing(channels=self.channels or 3, size=(self.size or 32, self.size or 32))

    def _preprocessing(self, samples: Samples | None) -> Preprocessing:
        """From the fields, else from the data. Raises `DomainError` where they contradict each other."""
        base = samples.preprocessing if samples is not None else Preprocessing()
        if self.input is not None and samples is None:
            return Preprocessing(kind="none")
        if base.kind != "image":
            for name in ("mean", "std"):
                if getattr(self, name) is not None:
                    raise DomainError(
                        "it belongs to images, and the data holds rows",
                        where=f"networks.checkpoint: {name}",
                        hint="leave it out; a table is scaled by its own rows, or with scale: false not at all",
                    )
            return base
        channels, size = self.channels, (self.size, self.size) if self.size else None
        if self.input is not None:
            if len(self.input) != 3 or self.input[0] not in (1, 3):
                raise DomainError(
                    f"the data holds images, the input is {self.input}",
                    where="networks.checkpoint: input",
                    hint="give (channels, height, width), or data that are rows or arrays",
                )
            channels, *size = self.input
        channels = channels or base.channels
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, channels):
                raise DomainError(
                    f"{len(numbers)} numbers for {channels} channels",
                    where=f"networks.checkpoint: {name}",
                    hint="give one number for each channel, or one for all",
                )
        return dataclasses.replace(
            base,
            channels=channels,
            size=tuple(size or base.size),
            mean=self.mean or _for_channels(base.mean, channels),
            std=self.std or _for_channels(base.std, channels),
        )

    def _example(self, samples: Samples | None, preprocessing: Preprocessing) -> Tensor | None:
        """A batch of inputs that are no images. Raises `DomainError` where `input` is not the shape of the data's."""
        import torch

        from mapsto.nn.network.preprocess import prepare

        if preprocessing.kind == "image":
            return None
        if samples is None:
            return torch.zeros(2, *(self.input or ()))
        integers = samples.inputs.dtype.kind in "iu"  # may be token ids; a network of floats takes them as such
        example = prepare(samples.inputs[:2], dataclasses.replace(preprocessing, integers=integers))
        if self.input is not None and tuple(example.shape[1:]) != self.input:
            raise DomainError(
                f"the data's samples have shape {tuple(example.shape[1:])}, the input is {self.input}",
                where="networks.checkpoint: input",
                hint="give data of the network's own shape",
            )
        return example

    def _path(self) -> Path:
        from mapsto.data.io.download import locate

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
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.isfinite().all():
                raise DataError(
                    f"tensor '{name}' holds NaN or infinity",
                    where=str(path),
                    hint="take a checkpoint of before training diverged",
                )
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _for_channels(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """The data's numbers where they fit, else their mean."""
    return numbers if len(numbers) in (1, channels) else (sum(numbers) / len(numbers),)


def _guessed(preprocessing: Preprocessing, of_data: bool, guessed_size: bool) -> str:
    """What was not said of a checkpoint's images, and what was taken for it."""
    mean, std = (",".join(f"{number:.4g}" for number in numbers) for numbers in (preprocessing.mean, preprocessing.std))
    usual = preprocessing.mean in ((0.485, 0.456, 0.406), (0.449,))  # what images of a folder are normalised by
    whose = "ImageNet's" if usual else "those of the data" if of_data else "a guess"
    text = f"mean {mean} and std {std} are {whose}; the weights' own training decides them: give mean and std if they are known"
    if guessed_size:
        shape = "x".join(map(str, (preprocessing.channels, *preprocessing.size)))
        text += f". An input of {shape} (channels, height, width) is a guess too: give input, or data that have it"
    return text


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
    except Exception as error:  # whatever PyTorch's reader raises here, the file is at fault
        reason = (
            str(error).partition(". ")[0] if isinstance(error, (RuntimeError, OSError)) else "it is no file of tensors"
        )
        raise DataError(f"not a whole checkpoint: {reason}"[:300], where=str(path), hint="fetch it again") from error
    if not isinstance(tree, dict):
        raise DataError(
            f"it holds a {type(tree).__name__}, not tensors by name", where=str(path), hint="save module.state_dict()"
        )
    return cast("dict[str, Any]", tree)

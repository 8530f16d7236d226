"""From a factory to a `Network`: what every ``networks.*`` mapping shares, and how a signature follows a new head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt

from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import (
    Factory,
    Frozen,
    Json,
    Network,
    Preprocessing,
    Samples,
    Signature,
    TensorSpec,
    detached,
    load_strictly,
)
from mapsto.mapping import DataSource

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["ForImages", "count", "network_of", "taking", "with_output"]


class ForImages(Frozen):
    """The fields of every network for images."""

    channels: int | None = Field(
        default=None,
        ge=1,
        le=3,
        description="Channels of the image; by default those of `data`, else the network's usual.",
    )
    size: int | None = Field(
        default=None,
        ge=1,
        description="Height and width in pixels; by default those of `data`, else the network's usual.",
    )
    classes: PositiveInt | Literal["data"] | None = Field(
        default=None,
        description="Outputs: a number, `data` for the classes of `data`, or none: the output is the embedding.",
    )
    data: DataSource | None = Field(
        default=None, description="A data set that gives channels, size, normalisation and class names."
    )

    def image_input(self, ctx: Context, *, usual: Preprocessing) -> tuple[Preprocessing, tuple[str, ...] | None]:
        """The preprocessing and the class names, from the fields, else from `data`, else as `usual`.

        Raises `DomainError` where class names are asked of data that is not given, or the data holds no images.
        """
        where = type(self).__name__
        samples = ctx.dataset(self.data, for_=self._reading(usual)) if self.data is not None else None
        base = samples.preprocessing if samples is not None else usual
        if base.kind != "image":
            raise DomainError(
                "the data holds no images", where=where, hint="choose a network for rows, or another data set"
            )
        if self.classes == "data" and samples is None:
            raise DomainError("classes are asked of the data, but there is none", where=where, hint="give data")
        channels = self.channels or base.channels
        mean, std = (_spread(values, channels) for values in (base.mean, base.std))
        size = (self.size, self.size) if self.size else base.size
        preprocessing = dataclasses.replace(base, channels=channels, size=size, mean=mean, std=std)
        if isinstance(self.classes, int):
            return preprocessing, tuple(str(index) for index in range(self.classes))
        return preprocessing, samples.classes if self.classes == "data" and samples is not None else None

    def _reading(self, usual: Preprocessing) -> Preprocessing:
        """How files are read where the data leave it open: as the fields say, else at the network's usual size and in colour."""
        size = (self.size, self.size) if self.size else usual.size
        return dataclasses.replace(usual, channels=self.channels or max(usual.channels, 3), size=size)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value a channel: grey to colour by repetition, colour to grey by the mean."""
    if len(values) in (1, channels):
        return values if len(values) == channels else values * channels
    return (sum(values) / len(values),) * channels


def count(classes: Sequence[str] | None) -> int | None:
    """How many classes, for a factory's argument."""
    return None if classes is None else len(classes)


def network_of(
    factory: str,
    arguments: Mapping[str, Json],
    preprocessing: Preprocessing,
    *,
    classes: Sequence[str] | None = None,
    data_classes: Sequence[str] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    assets: Mapping[str, bytes] | None = None,
    example: Tensor | None = None,
    output: str | int | None = None,
    note: Callable[[str], object] | None = None,
) -> Network:
    """A network from its factory, its signature read off one forward pass.

    Parameters
    ----------
    factory, arguments
        ``package.module:callable`` and its JSON arguments.
    preprocessing, classes, assets
        For the network.
    data_classes
        Of samples, one class each: those of the network where none are named, unless it gives a map for each sample.
    tensors
        Its weights; by default those that the factory draws from torch's global generator.
    example
        A batch of prepared input; by default of zeros as the preprocessing says.
    output
        Which of its outputs is taken, where it gives several; by default the only one, or ``logits``.
    note
        Where it is said that a norm of weights was folded, or an output chosen.

    Raises
    ------
    DomainError
        The tensors do not fit, the outputs are not as many as the class names, or several and none is named.
    """
    import torch

    from mapsto.nn.network.from_module import folding, one_tensor, require_names, require_usable, with_output_taken

    arch = Factory(name=factory, arguments=dict(arguments))
    module = arch.build().eval()
    if tensors is not None:
        load_strictly(module, tensors, where=factory)
    edits = folding(module, factory, note)
    batch = torch.zeros(2, preprocessing.channels, *preprocessing.size) if example is None else example
    with torch.no_grad():
        batch, answer = _forward(module, batch, factory)
        result, chosen = one_tensor(answer, output, where=factory, how="set output: {}")
    if chosen is not None:
        arch = with_output_taken(arch, chosen)
        if note is not None and output is None:
            note(f"of the outputs of {factory} {chosen!r} is taken; set output for another")
    require_usable(result, batch, factory)
    if classes is None and result.ndim < 3:
        classes = data_classes
    if classes is not None:
        require_names(classes, result, factory)
    ids = () if preprocessing.kind == "image" else _ids(module, batch, preprocessing.texts)
    rest = batch.shape[1:] if preprocessing.kind != "text" else (*batch.shape[1:-1], "L")
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype=_dtype(batch), shape=("N", *rest), ids=ids),),
        outputs=(TensorSpec(name="output", dtype=_dtype(result), shape=("N", *result.shape[1:])),),
        preprocessing=preprocessing,
        classes=tuple(classes) if classes is not None else None,
    )
    tensors = detached(module.state_dict())
    return Network(arch=arch, edits=edits, tensors=tensors, signature=signature, assets=dict(assets or {}))


def with_output(
    signature: Signature,
    outputs: int,
    classes: Sequence[str] | None,
    *,
    answers: Literal["classes", "labels", "values"] = "classes",
) -> Signature:
    """The signature after the head was replaced: `outputs` numbers, of these classes or none (an embedding)."""
    output = dataclasses.replace(signature.outputs[0], shape=("N", outputs))
    return dataclasses.replace(
        signature,
        outputs=(output, *signature.outputs[1:]),
        classes=tuple(classes) if classes is not None else None,
        answers=answers,
    )


def taking(signature: Signature, samples: Samples) -> Signature:
    """The signature with the table columns of what it was trained on, where it takes rows and knows of no columns yet; of texts, with
    the names of their columns.
    """
    before = signature.preprocessing
    if before.kind == "text" and samples.preprocessing.header:
        known = dataclasses.replace(before, header=samples.preprocessing.header)
        return dataclasses.replace(signature, preprocessing=known)
    if before.kind != "none" or before.columns or not samples.preprocessing.columns:
        return signature
    return dataclasses.replace(signature, preprocessing=samples.preprocessing)


def _ids(module: nn.Module, batch: Tensor, texts: int) -> tuple[int, ...]:
    from mapsto.nn.network.vocabulary import ids_of, ids_of_pairs

    return ids_of(module, batch) if texts == 1 else ids_of_pairs(module, batch)


def _forward(module: nn.Module, batch: Tensor, factory: str) -> tuple[Tensor, Any]:
    """The batch as the module takes it, which may be as integers (token ids) or as floats, and its result."""
    from mapsto.nn.network.from_module import called

    try:
        return batch, called(module, (batch,), factory, hint="check channels and size")
    except DomainError:
        other = batch.long() if batch.is_floating_point() else batch.float()
        try:
            return other, called(module, (other,), factory)
        except DomainError:
            pass  # neither: the first refusal is of what was given
        raise


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

"""What a network takes and gives: its inputs and outputs by name, how a raw sample becomes an input, and its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Preprocessing", "Signature", "TensorSpec"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One named input or output of a network."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Sizes; a string such as ``"N"`` is a symbolic dimension."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a raw sample becomes a network's input.

    An image of shape (H, W, C) or (C, H, W) with values 0 to 255 is converted to `channels` channels, resized to
    `size`, inverted where `ink` asks for it, divided by 255 and normalised: ``(x / 255 - mean) / std``. With ``kind="none"``
    samples are used as they are (tables, embeddings).
    """

    kind: Literal["image", "none"] = "image"
    channels: int = 3
    size: tuple[int, int] = (32, 32)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    ink: Literal["as_is", "light"] = "as_is"
    """``"light"``: the network expects light ink on a dark ground; an image with a bright border is inverted."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A network's named inputs and outputs, its preprocessing and its class labels."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] | None = None
    """Names of the outputs' classes in order; None for an embedding."""
    answers: Literal["classes", "labels", "values"] = "classes"
    """What the outputs are: scores of classes of which one is right, of labels each by itself, or numbers."""

    def plain(self) -> dict[str, Any]:
        """As JSON; `answers` is left out where it is the default, so that digests are those from before it was there."""
        tree = dataclasses.asdict(self)
        return tree if self.answers != "classes" else {name: part for name, part in tree.items() if name != "answers"}

    @staticmethod
    def from_plain(tree: Mapping[str, Any]) -> Signature:
        """A signature from its JSON form. Raises `ValueError`, `KeyError` or `TypeError` where it is not whole."""

        def specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(name=x["name"], dtype=x["dtype"], shape=tuple(x["shape"])) for x in items)

        before = dict(tree["preprocessing"])
        for name in ("size", "mean", "std"):
            before[name] = tuple(before[name])
        if not tree["inputs"] or not tree["outputs"]:
            raise ValueError("it names no input or no output")
        classes, answers = tree["classes"], tree.get("answers", "classes")
        if answers not in ("classes", "labels", "values"):
            raise ValueError(f"its answers are {answers!r}")
        return Signature(
            inputs=specs(tree["inputs"]),
            outputs=specs(tree["outputs"]),
            preprocessing=Preprocessing(**before),
            classes=tuple(classes) if classes is not None else None,
            answers=answers,
        )

    def input_shape(self, batch: int = 1) -> tuple[int, ...]:
        """The first input's shape with every symbolic dimension set to `batch`."""
        return tuple(batch if isinstance(size, str) else size for size in self.inputs[0].shape)

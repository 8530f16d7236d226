"""What a network takes and gives: its inputs and outputs by name, how a raw sample becomes an input, and its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["TYPICAL_TOKENS", "Column", "Preprocessing", "Signature", "TensorSpec"]

TYPICAL_TOKENS = 16
"""The length of a text where work and time are counted, and nothing says another."""
_OF_TEXTS = ("tokenizer", "length", "padding", "texts")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One named input or output of a network."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """Sizes; a string such as ``"N"`` is a symbolic dimension."""
    ids: tuple[int, ...] = ()
    """Of an input that is looked up in tables, as token ids are: how many ids there are, so that they run from 0 to one less. One number
    for all places of a sample, or one for each along its first axis, 0 where nothing is looked up. Empty: not known, or not looked up."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column of a raw table becomes numbers, learnt from the train rows.

    Numbers become ``(x - mean) / std``. A word becomes one number for each category, 1 for its own and 0 for the others, or
    with ``encode="ordinal"`` its place among them, scaled like a number. A word that is no category counts as missing.
    """

    name: str
    type: Literal["numbers", "words"] = "numbers"
    categories: tuple[str, ...] = ()
    """Of words: each word of the train rows, by alphabet. Of numbers: words that stand for a missing value in it."""
    encode: Literal["one_hot", "ordinal"] = "one_hot"
    mean: float = 0.0
    std: float = 1.0
    fill: tuple[float, ...] = ()
    """What stands for a missing value, one number for each that the column becomes, before scaling: their means over the train
    rows. Empty: a missing value is an error."""
    decimal: Literal[".", ","] = "."
    """The decimal sign of the table trained on, by which rows are read that do not show theirs, as one with ``4.020`` alone."""
    missing: Literal["filled", "marked"] = "filled"
    """``marked``: a missing value comes to the network as NaN, and is no error."""
    others: bool = False
    """Of words: the last category stands for every word that is none of the categories."""

    @property
    def width(self) -> int:
        """Numbers that a value becomes."""
        return len(self.categories) if self.type == "words" and self.encode == "one_hot" else 1


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a raw sample becomes a network's input.

    An image of shape (H, W, C) or (C, H, W) with values 0 to 255 is converted to `channels` channels, resized to
    `size`, inverted where `ink` asks for it, divided by 255 and normalised: ``(x / 255 - mean) / std``. With ``kind="none"``
    samples are used as they are (embeddings), or where `columns` are given rows of a raw table are encoded by them. With
    ``kind="text"`` a text becomes the ids of its tokens, and a batch is as long as its longest text.
    """

    kind: Literal["image", "text", "none"] = "image"
    channels: int = 3
    size: tuple[int, int] = (32, 32)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    ink: Literal["as_is", "light"] = "as_is"
    """``"light"``: the network expects light ink on a dark ground; an image with a bright border is inverted."""
    fit: Literal["stretch", "crop"] = "stretch"
    """How an image of other proportions comes to `size`: stretched, or with ``"crop"`` scaled until it just covers `scaled_size` and its
    middle cut out, as ImageNet's networks are evaluated."""
    columns: tuple[Column, ...] = ()
    """Of a table: what each column that is predicted from becomes, in the order of the network's input."""
    integers: bool = False
    """With ``kind="none"`` or ``"text"``: samples are whole numbers, such as token ids, and become int64; else float32. A signature has it
    from its input's type, so that it is stored nowhere else."""
    doubles: bool = False
    """With `columns`: rows become float64; else float32. As `integers`, from the input's type."""
    ids: tuple[int, ...] = ()
    """With ``kind="none"`` or ``"text"``: the input's `TensorSpec.ids`, which a signature has from there."""
    header: tuple[str, ...] = ()
    """Of a table: all columns of the one trained on, in its order. Those that are not in `columns` (the label, ids) are passed over."""
    tokenizer: str = ""
    """Of texts: the SHA-256 of the tokenizer's file."""
    length: int = 128
    """Of texts: the most tokens that are read, those that begin and end a text among them."""
    padding: int = 0
    """Of texts: the id that fills a text up to the length of its batch."""
    texts: int = 1
    """Of texts: how many a sample consists of; 2 is a pair."""
    tokenizer_json: bytes = field(default=b"", compare=False, repr=False)
    """Of texts: the tokenizer's file, which a network has from its assets and a package from its files; it is stored nowhere else."""

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Height and width that an image is scaled to: `size`, or with ``fit="crop"`` 8/7 of it, of which the middle is cut out.

        >>> Preprocessing(size=(224, 224), fit="crop").scaled_size
        (256, 256)
        """
        height, width = self.size
        return (round(height * 8 / 7), round(width * 8 / 7)) if self.fit == "crop" else (height, width)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A network's named inputs and outputs, its preprocessing and its class labels."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] | None = None
    """Names of the outputs' classes in order; None for an embedding."""
    answers: Literal["classes", "labels", "values", "tags"] = "classes"
    """What the outputs are: scores of classes of which one is right, of labels each by itself, numbers, or for each token of a text scores
    of the tags, of which that of a word's first token counts."""

    def __post_init__(self) -> None:
        plain = self.preprocessing.kind != "image" and bool(self.inputs)
        integers = plain and "int" in self.inputs[0].dtype
        doubles = plain and self.inputs[0].dtype == "float64"
        ids = self.inputs[0].ids if plain else ()
        before = self.preprocessing
        if (integers, doubles, ids) != (before.integers, before.doubles, before.ids):
            known = dataclasses.replace(before, integers=integers, doubles=doubles, ids=ids)
            object.__setattr__(self, "preprocessing", known)

    def plain(self) -> dict[str, Any]:
        """As JSON; what is of tables or ids alone, and `answers`, are left out at their default, so that older digests stay."""
        tree = dataclasses.asdict(self)
        for spec in (*tree["inputs"], *tree["outputs"]):
            if not spec["ids"]:
                del spec["ids"]
        for column in tree["preprocessing"]["columns"]:
            if column["decimal"] == ".":
                del column["decimal"]
            if column["missing"] == "filled":
                del column["missing"]
            if not column["others"]:
                del column["others"]
        texts = self.preprocessing.kind == "text"
        for name in ("integers", "doubles", "ids", "tokenizer_json", *(() if texts else _OF_TEXTS)):
            del tree["preprocessing"][name]
        if self.preprocessing.fit == "stretch":
            del tree["preprocessing"]["fit"]
        for name in ("channels", "size", "mean", "std", "ink") if texts else ():
            del tree["preprocessing"][name]
        for name in ("columns", "header"):
            if not tree["preprocessing"][name]:
                del tree["preprocessing"][name]
        if self.answers == "classes":
            del tree["answers"]
        return tree

    @staticmethod
    def from_plain(tree: Mapping[str, Any]) -> Signature:
        """A signature from its JSON form. Raises `ValueError`, `KeyError` or `TypeError` where it is not whole."""

        def specs(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(name=x["name"], dtype=x["dtype"], shape=tuple(x["shape"]), ids=tuple(x.get("ids", ())))
                for x in items
            )

        before = dict(tree["preprocessing"])
        for name in ("size", "mean", "std"):
            if name in before or before.get("kind") != "text":
                before[name] = tuple(before[name])
        before["columns"] = tuple(_column(part) for part in before.get("columns", ()))
        before["header"] = tuple(before.get("header", ()))
        if not tree["inputs"] or not tree["outputs"]:
            raise ValueError("it names no input or no output")
        classes, answers = tree["classes"], tree.get("answers", "classes")
        if answers not in ("classes", "labels", "values", "tags"):
            raise ValueError(f"its answers are {answers!r}")
        return Signature(
            inputs=specs(tree["inputs"]),
            outputs=specs(tree["outputs"]),
            preprocessing=Preprocessing(**before),
            classes=tuple(classes) if classes is not None else None,
            answers=answers,
        )

    @property
    def is_dense(self) -> bool:
        """Whether a sample's output is a map, (C, H, W) say, and not a vector of scores, values or an embedding."""
        return len(self.outputs[0].shape) > 2

    def input_shape(self, batch: int = 1) -> tuple[int, ...]:
        """The first input's shape with the symbolic dimension set to `batch`; of texts, with `TYPICAL_TOKENS` as their length."""
        first, *rest = self.inputs[0].shape
        tokens = min(TYPICAL_TOKENS, self.preprocessing.length) if self.preprocessing.kind == "text" else batch
        return (
            batch if isinstance(first, str) else first,
            *(tokens if isinstance(size, str) else size for size in rest),
        )

    def reading(self, tokenizer: bytes) -> Signature:
        """This signature with the file of the tokenizer that its texts are read by."""
        return dataclasses.replace(
            self, preprocessing=dataclasses.replace(self.preprocessing, tokenizer_json=tokenizer)
        )


def _column(tree: Mapping[str, Any]) -> Column:
    fields = dict(tree)
    for name in ("categories", "fill"):
        fields[name] = tuple(fields[name])
    return Column(**fields)

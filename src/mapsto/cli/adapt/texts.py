"""Texts that ``mapsto adapt`` learns from: which encoder reads them, and the data sets of the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.cli.adapt.images import AtHand, find_learner
from mapsto.errors import DataError, DomainError, SpecError, command
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Dataset, Network, Samples
    from mapsto.search.adapt import Examples

__all__ = ["encoder_at_hand", "example_of", "examples_of", "for_encoder", "require_table", "targets_of"]


def encoder_at_hand(place: Path | None, ctx: Context, *, store: str | None, step: str | None, texts: int = 1) -> AtHand:
    """The encoder to adapt: of a run or a package, of a folder saved by transformers or of the hub, or MiniLM where none is named.

    `texts` is 2 for pairs.

    Raises
    ------
    MissingExtra
        The extra `text` is not installed.
    DataError
        There is no encoder in that place.
    DomainError
        What is there takes no texts.
    """
    from mapsto.cli.encoders import encoder_node, is_encoder
    from mapsto.recipe.nodes import step_from_node

    if place is None or is_encoder(place):
        node, called = encoder_node(place, texts=texts)
        return AtHand(network=ctx.apply(step_from_node(node), None), name=called, node=node)
    network, called = find_learner(place, store=store, label=step)
    if network.signature.preprocessing.kind != "text":
        raise DomainError(
            "it takes no texts", where=str(place), hint="leave it out, or give a folder saved by transformers"
        )
    takes = network.signature.preprocessing.texts
    if takes != texts:
        raise DomainError(
            f"a sample is {texts} texts, and it takes {takes}",
            where=str(place),
            hint=f"name {takes} columns with --text, or leave it out",
        )
    return AtHand(network=network, name=called)


def require_table(file: Path, text: Sequence[str], targets: Sequence[str]) -> None:
    """Raises `SpecError` where no target is named, or too many columns of texts, `DataError` where there is no file."""
    if not targets:
        raise SpecError(
            "it takes the column to predict, too",
            where="--text",
            hint=command("mapsto adapt {table} --text {column} --target COLUMN", table=file, column=text[0]),
        )
    if len(text) > 2:
        raise SpecError(f"{len(text)} columns are named", where="--text", hint="name one, or two for pairs of texts")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        raise DataError(what, where=str(file), hint="give a .csv, .tsv, .parquet or .jsonl table")


def examples_of(
    file: Path,
    text: Sequence[str],
    target: str,
    unlabelled: Path | None,
    *,
    class_weights: str,
    out_of_scope: str | None = None,
) -> tuple[Examples, Dataset]:
    """What the recipe says of the data, and the labelled examples, one class each; those of `out_of_scope` are none.

    All are read once, so that what is wrong with them is said before an encoder is loaded.

    Raises
    ------
    SpecError
        There is no such column.
    DataError
        A file is not whole or has no rows, or the examples are of one class.
    """
    from mapsto import discovery
    from mapsto.data.checks import require_classes
    from mapsto.data.io.download import locate
    from mapsto.data.io.tables import read_table, target_of
    from mapsto.search.adapt import Examples

    column: Any = text[0] if len(text) == 1 else list(text)
    fields: dict[str, Any] = {"text": column, "target": target, "unlabelled": "leave_out"}
    labelled = {"text": {"file": str(file.resolve()), **fields}}
    pool = None
    if unlabelled is not None:
        pool = {"text": {"file": str(unlabelled.resolve()), "text": column}}
    outside = None
    if out_of_scope is not None:
        labelled["text"]["without"] = out_of_scope
        path = locate(str(file), what="the texts")
        if out_of_scope in target_of(read_table(path, [target]), target, where=str(path)).words:
            everything = {"text": {"file": str(file.resolve()), **fields}}
            outside = {"subset": {"data": everything, "classes": [out_of_scope]}}
    data = discovery.find("data", "text")(
        file=str(file),
        text=tuple(text) if len(text) > 1 else text[0],
        target=target,
        unlabelled="leave_out",
        without=out_of_scope,
    )
    found = Examples(
        labelled=labelled,
        pool=pool,
        class_weights=class_weights,
        augment=False,  # copies hardly ever gain what their embeddings cost: docs/augment.md
        out_of_scope=out_of_scope,
        outside=outside,
    )
    samples = data.open()
    require_classes(samples, max(2, len(samples.classes)), where=str(file))
    _read_pool(found)
    return found, data


def for_encoder(examples: Examples, network: Network, texts: int) -> Examples:
    """The examples with how many layers of `network` are tuned: of pairs, `texts` 2, none."""
    from mapsto.nn.adapt.top_layers import tunable_layers

    return dataclasses.replace(examples, contrastive=tunable_layers(network) if texts == 1 else 0)


def _read_pool(examples: Examples) -> None:
    """Raises what reading the texts without labels does, where there are some."""
    from mapsto.recipe.nodes import data_from_node

    if examples.pool is not None:
        data_from_node(examples.pool).open()


def targets_of(
    file: Path,
    text: Sequence[str],
    targets: Sequence[str],
    task: Literal["labels", "values"],
    separator: str,
    unlabelled: Path | None,
) -> tuple[Examples, Dataset]:
    """What the recipe says of the examples of labels or numbers, and the examples; all are read once, as by `examples_of`.

    Raises `DataError`, beside what `examples_of` does, where no label is on some texts and off others.
    """
    from mapsto import discovery
    from mapsto.search.adapt import Examples

    columns: list[Any] = [each[0] if len(each) == 1 else list(each) for each in (text, targets)]
    fields: dict[str, Any] = {"text": columns[0], "target": columns[1], "task": task, "separator": separator}
    labelled = {"text": {"file": str(file.resolve()), **fields, "unlabelled": "leave_out"}}
    data = discovery.find("data", "text")(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in labelled["text"].items()}
    )
    pool = None if unlabelled is None else {"text": {"file": str(unlabelled.resolve()), "text": columns[0]}}
    found = Examples(labelled=labelled, pool=pool)
    _require_told_apart(data.open(), task, str(file))
    _read_pool(found)
    return found, data


def _require_told_apart(samples: Samples, task: Literal["labels", "values"], file: str) -> None:
    """Raises `DataError` where there is nothing to learn."""
    if task == "labels" and not (samples.labels.any(0) & ~samples.labels.all(0)).any():
        raise DataError(
            "there is no label that some texts have and others have not",
            where=file,
            hint="name a column whose cells hold labels, such as: red; fruit",
        )
    if task == "labels" and len(samples.classes) == len(samples) > 2:
        raise DataError(
            f"there are as many labels as texts ({len(samples)}), such as '{short(samples.classes[0])}'",
            where=file,
            hint="check --separator, or name another column",
        )


def example_of(data: Dataset) -> str:
    """A text to try the package on."""
    text = data.open().inputs[0]
    return text if isinstance(text, str) else "FILE.csv"

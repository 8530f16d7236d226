"""Texts that ``mapsto adapt`` learns from: which encoder reads them, and the data sets of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mapsto.cli.adapt.images import AtHand, find_learner
from mapsto.errors import DataError, DomainError, SpecError, command

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Dataset, Network
    from mapsto.search.adapt import Examples

__all__ = ["encoder_at_hand", "example_of", "examples_of", "require_table", "targets_of"]


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
    network: Network,
    out_of_scope: str | None = None,
) -> tuple[Examples, Dataset]:
    """What the recipe says of the data for `network`, and the labelled examples, one class each; those of `out_of_scope` are none."""
    from mapsto import discovery
    from mapsto.data.io.download import locate
    from mapsto.data.io.tables import read_table, target_of
    from mapsto.nn.adapt.top_layers import tunable_layers
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
        contrastive=tunable_layers(network) if len(text) == 1 else 0,
        out_of_scope=out_of_scope,
        outside=outside,
    )
    return found, data


def targets_of(
    file: Path,
    text: Sequence[str],
    targets: Sequence[str],
    task: Literal["labels", "values"],
    separator: str,
    unlabelled: Path | None,
) -> tuple[Examples, Dataset]:
    """What the recipe says of the examples of labels or numbers, and the examples."""
    from mapsto import discovery
    from mapsto.search.adapt import Examples

    columns: list[Any] = [each[0] if len(each) == 1 else list(each) for each in (text, targets)]
    fields: dict[str, Any] = {"text": columns[0], "target": columns[1], "task": task, "separator": separator}
    labelled = {"text": {"file": str(file.resolve()), **fields, "unlabelled": "leave_out"}}
    data = discovery.find("data", "text")(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in labelled["text"].items()}
    )
    pool = None if unlabelled is None else {"text": {"file": str(unlabelled.resolve()), "text": columns[0]}}
    return Examples(labelled=labelled, pool=pool), data


def example_of(data: Dataset) -> str:
    """A text to try the package on."""
    text = data.open().inputs[0]
    return text if isinstance(text, str) else "FILE.csv"

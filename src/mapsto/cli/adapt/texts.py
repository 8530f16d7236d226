"""Texts that ``mapsto adapt`` learns from: which encoder reads them, and the data sets of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.cli.adapt.images import AtHand, find_learner
from mapsto.errors import DataError, DomainError, SpecError, command

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Dataset
    from mapsto.search.adapt import Examples

__all__ = ["encoder_at_hand", "example_of", "examples_of"]


def encoder_at_hand(place: Path | None, ctx: Context, *, store: str | None, step: str | None) -> AtHand:
    """The encoder to adapt: of a run or a package, a folder saved by transformers, or MiniLM where none is named.

    Raises
    ------
    MissingExtra
        The extra `text` is not installed.
    DataError
        There is no encoder in that place.
    DomainError
        What is there takes no texts.
    """
    from mapsto import discovery

    if place is None or (place / "config.json").is_file():
        name = "networks.minilm" if place is None else "networks.hf_text"
        fields: dict[str, Any] = {} if place is None else {"folder": str(place.resolve())}
        network = ctx.apply(discovery.find("mappings", name)(**fields), None)
        called = "MiniLM-L6 (English sentences)" if place is None else place.resolve().name
        return AtHand(network=network, name=called, node={name: fields})
    network, called = find_learner(place, store=store, label=step)
    if network.signature.preprocessing.kind != "text":
        raise DomainError(
            "it takes no texts", where=str(place), hint="leave it out, or give a folder saved by transformers"
        )
    return AtHand(network=network, name=called)


def examples_of(
    file: Path,
    text: Sequence[str],
    target: str | None,
    unlabelled: Path | None,
    *,
    class_weights: str,
) -> tuple[Examples, Dataset]:
    """What the recipe says of the data, and the labelled examples.

    Raises `SpecError` where no target is named, or too many columns of texts.
    """
    from mapsto import discovery
    from mapsto.search.adapt import Examples

    if target is None:
        raise SpecError(
            "it takes the column to predict, too",
            where="--text",
            hint=command("mapsto adapt {table} --text {text} --target COLUMN", table=file, text=text[0]),
        )
    if len(text) > 2:
        raise SpecError(f"{len(text)} columns are named", where="--text", hint="name one, or two for pairs of texts")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        raise DataError(what, where=str(file), hint="give a .csv, .tsv, .parquet or .jsonl table")
    column: Any = text[0] if len(text) == 1 else list(text)
    fields: dict[str, Any] = {"text": column, "target": target, "unlabelled": "leave_out"}
    labelled = {"text": {"file": str(file.resolve()), **fields}}
    pool = None
    if unlabelled is not None:
        pool = {"text": {"file": str(unlabelled.resolve()), "text": column}}
    data = discovery.find("data", "text")(
        file=str(file), text=tuple(text) if len(text) > 1 else text[0], target=target, unlabelled="leave_out"
    )
    return Examples(labelled=labelled, pool=pool, class_weights=class_weights, augment=False), data


def example_of(data: Dataset) -> str:
    """A text to try the package on."""
    text = data.open().inputs[0]
    return text if isinstance(text, str) else "FILE.csv"

"""Sentences with tagged words that ``mapsto adapt --task tags`` learns from, to a package that finds such words in texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import DataError, SpecError

if TYPE_CHECKING:
    from mapsto.context import Context
    from mapsto.kinds import Network, Package

__all__ = ["adapt_to_tags"]


def adapt_to_tags(
    network: Network, file: Path, text: Sequence[str], targets: Sequence[str], ctx: Context
) -> tuple[Package, dict[str, Any]]:
    """A package that answers spans of words, and what it came to.

    Parameters
    ----------
    file
        As `datasets.tags` reads it.
    text, targets
        The column of words and that of tags, ``tokens`` and ``tags`` where none is named.

    Returns
    -------
    tuple[Package, dict]
        The package; and ``task``, ``examples`` (sentences), ``classes`` (label → spans), ``method``, ``example`` (a sentence), and by
        cross-validation ``words_percent``, ``span_f1_percent``, ``folds`` and ``per_label``, left out where sentences are too few.
    """
    from mapsto import discovery
    from mapsto.nn.export.training_digests import with_training_digests
    from mapsto_runtime.preprocessing.words import spans_of

    for name, given in (("--text", text), ("--target", targets)):
        if len(given) > 1:
            raise SpecError(f"{len(given)} columns are named", where=name, hint="name one, a column of lists")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        raise DataError(
            what, where=str(file), hint="give a .jsonl or .parquet file, or lines with a word, a tab and its tag"
        )
    fields = {"tokens": text[0] if text else "tokens", "tags": targets[0] if targets else "tags"}
    data = discovery.find("data", "tags")(file=str(file), **fields)
    samples = data.open()
    counts: dict[str, int] = {}
    for row in samples.labels:
        tags = [samples.classes[tag] for tag in row[row >= 0]]
        for *_, label in spans_of(tags, known=samples.classes):
            counts[label] = counts.get(label, 0) + 1
    adapted: Network = ctx.apply(discovery.find("mappings", "adapt.tagger")(data=data), network)
    package: Package = ctx.apply(discovery.find("mappings", "export.onnx")(data=data), adapted)
    with ctx.giving(network):
        package = with_training_digests(package, ctx.dataset(data).inputs, ctx)
    found: dict[str, Any] = {
        "task": "tags",
        "method": "a logistic regression on the hidden states of words",
        "examples": len(samples),
        "classes": dict(sorted(counts.items())),
        "example": str(samples.inputs[0]),
    }
    attached: dict[str, Any] = ctx.attached
    if "tagging" in attached:
        figures = dict(attached["tagging"].rows)
        found |= {
            "words_percent": figures["words right"],
            "span_f1_percent": figures["span F1"],
            "folds": int(figures["folds"]),
        }
        table = attached["spans"]
        found["per_label"] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return package, found

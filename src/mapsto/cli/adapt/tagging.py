"""Sentences with tagged words that ``mapsto adapt --task tags`` learns from, to a package that finds such words in texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsto.errors import DataError, SpecError

if TYPE_CHECKING:
    from mapsto.cli.adapt.images import AtHand
    from mapsto.cli.adapt.networks import Asked
    from mapsto.context import Context
    from mapsto.kinds import Samples
    from mapsto.run.result import Listener
    from mapsto.search.adapt import Examples

__all__ = ["adapt_to_tags", "tagged_examples"]


def tagged_examples(file: Path, text: Sequence[str], targets: Sequence[str]) -> tuple[Examples, Samples]:
    """What the recipe says of the sentences, and the sentences as they are in the file.

    Parameters
    ----------
    file
        As `datasets.tags` reads it.
    text, targets
        The column of words and that of tags, ``tokens`` and ``tags`` where none is named.
    """
    from mapsto import discovery
    from mapsto.search.adapt import Examples

    for name, given in (("--text", text), ("--target", targets)):
        if len(given) > 1:
            raise SpecError(f"{len(given)} columns are named", where=name, hint="name one, a column of lists")
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no such file"
        raise DataError(
            what, where=str(file), hint="give a .jsonl or .parquet file, or lines with a word, a tab and its tag"
        )
    fields = {"tokens": text[0] if text else "tokens", "tags": targets[0] if targets else "tags"}
    labelled = {"tags": {"file": str(file.resolve()), **fields}}
    samples: Samples = discovery.find("data", "tags")(**labelled["tags"]).open()
    return Examples(labelled=labelled), samples


def adapt_to_tags(start: AtHand, samples: Samples, asked: Asked, ctx: Context, listener: Listener) -> dict[str, Any]:
    """What a package came to that answers spans of words; it is in the folder.

    Returns
    -------
    dict
        ``task``, ``examples`` (sentences), ``classes`` (label → spans), ``method``, ``example`` (a sentence), ``bytes`` and by
        cross-validation ``words_percent``, ``span_f1_percent``, ``folds`` and ``per_label``, left out where sentences are too few.
    """
    from mapsto import discovery
    from mapsto.cli.adapt.networks import adapt_head, head_figures, network_node, rows_of
    from mapsto_runtime.preprocessing.words import spans_of

    counts: dict[str, int] = {}
    for row in samples.labels:
        tags = [samples.classes[tag] for tag in row[row >= 0]]
        for *_, label in spans_of(tags, known=samples.classes):
            counts[label] = counts.get(label, 0) + 1
    node = start.node or network_node(start.network, asked.folder)
    with ctx.giving(start.network):
        read = ctx.dataset(discovery.find("data", "tags")(**asked.examples.labelled["tags"]))
    report = adapt_head(node, start.network, {"adapt.tagger": {}}, read, asked, ctx, listener, ways=("int8", "layers"))
    tables, found = head_figures(report)
    found |= {
        "task": "tags",
        "method": "a logistic regression on the hidden states of words",
        "examples": len(samples),
        "classes": dict(sorted(counts.items())),
        "example": str(samples.inputs[0]),
    }
    if "tagging" in tables:
        figures = {row[0]: row[1] for row in tables["tagging"]["rows"]}
        found |= {
            "words_percent": figures["words right"],
            "span_f1_percent": figures["span F1"],
            "folds": int(figures["folds"]),
        }
        found["per_label"] = rows_of(tables["spans"])
    return found

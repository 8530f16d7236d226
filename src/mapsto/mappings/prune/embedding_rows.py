"""Drop the rows of a text network's vocabulary that never occur in its data; of a small encoder they are half of its parameters.

``V' = {i : count_i ≥ min_count} ∪ special``, and every other id gets the row of the unknown token (Abdaoui, Pradel and Sigel, "Load
What You Need: Smaller Versions of Multilingual BERT", 2020, who rewrite the tokenizer instead). Ids and tokenizer stay as they are,
a map from ids to rows goes with the network: on text of whose tokens none was dropped it gives what it gave.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["EmbeddingRows"]


def _encoder() -> Network:
    """For the contract suite: a network whose vocabulary has a token for each grey of its images."""
    from mapsto import discovery

    source = discovery.find("mappings", "networks.hf_text")
    return source(configuration={**source.contract["configuration"], "vocab_size": 256}, length=8)(seed=0)


class EmbeddingRows(Mapping[Network, Network]):
    """The network without the vocabulary rows that `data` does not use; it takes the same ids, so that its tokenizer stays.

    Raises `DataError` for data without a sample, of numbers that are no ids, or of ids beyond the vocabulary, and `DomainError` for a
    network that is quantized, without a vocabulary, or whose unknown token is not known.

    >>> from mapsto import datasets
    >>> from mapsto.mappings.prune.embedding_rows import _encoder
    >>> greys = datasets.digits(size=16)  # as if they were tokens
    >>> small = EmbeddingRows(data=greys, min_count=2000, unknown=1, keep=(9,))(_encoder())
    >>> small.edits[0].kept.of, small.edits[0].kept.indices
    (256, '0-7,9,255')
    """

    data: DataSource
    """Token ids (N, L) as the tokenizer gives them for the network's text; labels are not used."""
    min_count: int = Field(default=1, ge=1)
    """Times that a token occurs in `data` to keep its row."""
    keep: tuple[int, ...] = ()
    """Ids that stay whether they occur or not, besides padding and what the tokenizer calls special."""
    unknown: int | None = Field(default=None, ge=0)
    """Id whose row stands for those dropped; by default the tokenizer's unknown token."""

    contract: ClassVar[dict[str, Any]] = {"unknown": 1, "min_count": 20}
    contract_input: ClassVar[Any] = staticmethod(_encoder)

    def apply(self, value: Network, ctx: Context) -> Network:
        import numpy as np

        from mapsto.nn.edits.channels import Channels
        from mapsto.nn.edits.embedding_rows import EmbeddingRows as Edit
        from mapsto.nn.edits.embedding_rows import rows_of
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.prune.checks import require_prunable

        module = require_prunable(value, where=self.name)
        path, layer = _vocabulary(module, example_batch(value), where=self.name)
        rows = rows_of(layer).numpy()
        special, unknown = _tokenizer(value)
        unknown = self.unknown if self.unknown is not None else unknown
        if unknown is None:
            raise DomainError(
                "which token is the unknown one is not known, as the network has no tokenizer that says it",
                where=self.name,
                hint="give its id, as in unknown=100",
            )
        stays = {unknown, *self.keep, *special}
        padding = getattr(module, "padding", layer.padding_idx)
        if isinstance(padding, int) and padding >= 0:
            stays.add(padding)
        beyond = [number for number in sorted(stays) if not 0 <= number < len(rows)]
        if beyond:
            raise DomainError(
                f"id {beyond[0]} is not among {len(rows):,}", where=self.name, hint="give ids of the vocabulary"
            )
        kept = np.zeros(layer.num_embeddings, np.bool_)
        kept[rows[self._counts(ctx, len(rows)) >= self.min_count]] = True
        kept[rows[sorted(stays)]] = True
        if kept.all():
            return value
        ctx.log(f"{int(kept.sum()):,} of {len(kept):,} rows stay")
        name = f"{path}.weight" if path else "weight"
        indices = np.flatnonzero(kept).tolist()
        (runs,) = Channels.of({name: {0: indices}}, sizes={name: {0: len(kept)}}, attributes={}).kept
        edit = Edit(path=path, kept=runs, unknown=int(rows[unknown]))
        return value.with_module(edit.apply(module), edit)

    def _counts(self, ctx: Context, ids: int) -> NDArray[np.int64]:
        """How often each id occurs, shape (ids,)."""
        import numpy as np

        from mapsto.data.checks import require_some

        where = f"{self.name}: data"
        inputs = require_some(ctx.dataset(self.data), where=where).inputs
        if inputs.dtype.kind not in "iu":
            raise DataError(f"its inputs are {inputs.dtype}, no ids", where=where, hint="give whole numbers (N, L)")
        if int(inputs.min()) < 0 or int(inputs.max()) >= ids:
            raise DataError(
                f"its ids run from {int(inputs.min())} to {int(inputs.max())}, the vocabulary has {ids:,}",
                where=where,
                hint="tokenize with the network's own tokenizer",
            )
        return np.bincount(inputs.reshape(-1), minlength=ids)


def _vocabulary(module: nn.Module, example: Any, *, where: str) -> tuple[str, nn.Embedding]:
    """The embedding that takes the network's input, and its path."""
    import torch
    from torch import nn

    from mapsto.nn.network.layer_calls import run_watched

    parts = {path: part for path, part in module.named_modules() if isinstance(part, nn.Embedding)}
    tables: dict[str, nn.Embedding] = {}

    def compare(path: str, given: tuple[torch.Tensor, ...], _: object) -> None:
        if torch.equal(given[0], example):
            tables[path] = parts[path]

    if not example.is_floating_point():
        run_watched(module, parts, [example], compare)
    if not tables:
        raise DomainError(
            f"no nn.Embedding takes its input, which is {str(example.dtype).removeprefix('torch.')}",
            where=where,
            hint="give a text network, which takes token ids",
        )
    path = max(tables, key=lambda name: tables[name].num_embeddings)
    shared = [
        name
        for name, tensor in module.named_parameters(remove_duplicate=False)
        if tensor is tables[path].weight and name.rpartition(".")[0] != path
    ]
    if shared:
        raise DomainError(
            f"its vocabulary is also '{shared[0]}'", where=where, hint="give an encoder without a tied output"
        )
    return path, tables[path]


def _tokenizer(value: Network) -> tuple[set[int], int | None]:
    """Ids that the tokenizer calls special, and that of the unknown token."""
    asset = value.assets.get("tokenizer.json")
    if asset is None:
        return set(), None
    tree: dict[str, Any] = json.loads(asset)
    added: list[dict[str, Any]] = tree.get("added_tokens") or []
    names = {entry["content"]: int(entry["id"]) for entry in added}
    special = {int(entry["id"]) for entry in added if entry.get("special")}
    model: dict[str, Any] = tree.get("model") or {}
    if isinstance(model.get("unk_id"), int):
        return special, int(model["unk_id"])
    vocabulary: Any = model.get("vocab")
    known = {**vocabulary, **names} if isinstance(vocabulary, dict) else names
    for token in (model.get("unk_token"), "[UNK]", "<unk>"):
        if token in known:
            return special, int(known[token])
    return special, None

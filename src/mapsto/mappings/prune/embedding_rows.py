"""Drop the rows of a text network's vocabulary that never occur in its data; of a small encoder they are half of its parameters.

``V' = {i : count_i ≥ min_count} ∪ special``, and every other id gets the row of the unknown token (Abdaoui, Pradel and Sigel, "Load
What You Need: Smaller Versions of Multilingual BERT", 2020, who rewrite the tokenizer instead). Ids and tokenizer stay as they are,
a map from ids to rows goes with the network: on text of whose tokens none was dropped it gives what it gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto_runtime.preprocessing.texts import ASSET

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
        from mapsto.nn.prune.reduced_tokenizer import special_tokens
        from mapsto.nn.prune.token_table import token_table

        module = require_prunable(value, where=self.name)
        path, layer = token_table(module, example_batch(value), where=self.name)
        rows = rows_of(layer).numpy()
        tokenizer = value.assets.get(ASSET)
        special, unknown = (set[int](), None) if tokenizer is None else special_tokens(tokenizer)
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

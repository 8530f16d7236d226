"""Keep the tokens that a domain's texts use, with a tokenizer that splits every other word into pieces of them.

``V' = {i : count_i ≥ min_count} ∪ special ∪ single characters``, numbered anew, so that the word table is sliced and nothing is looked
up between tokenizer and table (Abdaoui, Pradel and Sigel, "Load What You Need: Smaller Versions of Multilingual BERT", 2020; that a
lost word is split again and not unknown follows from the single characters). `prune.embedding_rows` keeps the tokenizer instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.errors import DataError, DomainError
from mapsto.kinds import Network
from mapsto.mapping import DataSource, Mapping
from mapsto_runtime.preprocessing.texts import ASSET, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["Vocabulary"]

_COMPARED = 16
"""Texts on which the answers before and after are compared."""
_TOLERANCE = 1e-3
"""Of an answer, in shares of the answers' greatest absolute value."""


def _encoder() -> Network:
    """For the contract suite: an encoder with a token for each grey of its images, as if they were texts."""
    from mapsto.nn.network.examples import reading_greys

    return reading_greys()


class Vocabulary(Mapping[Network, Network]):
    """The network with a table and a tokenizer of fewer tokens.

    Texts of `data` whose tokens all stay give what they gave; a word that is lost is spelled by shorter pieces, which costs tokens and
    a little accuracy. WordPiece, BPE and Unigram tokenizers are reduced; one of whole words is refused.

    Raises `DataError` for data without a sample or of no token ids, and `DomainError` for a network that is quantized, reads no texts,
    or whose tokenizer or encoder cannot be numbered anew.

    >>> from mapsto import datasets
    >>> from mapsto.mappings.prune.vocabulary import _encoder
    >>> greys = datasets.digits(size=16)  # as if they were tokens
    >>> small = Vocabulary(data=greys, min_count=2000)(_encoder())
    >>> [tuple(network.tensors["encoder.embeddings.word_embeddings.weight"].shape) for network in (_encoder(), small)]
    [(256, 8), (9, 8)]
    """

    data: DataSource
    """Texts of the domain, labelled or not; those that the network is adapted to among them."""
    min_count: int = Field(default=1, ge=1)
    """Times that a token occurs in `data` to stay; 2 halves what a table of unlike texts takes, and splits words that occur once."""
    characters: Literal["scripts", "all"] = "scripts"
    """Which single characters stay besides: of the scripts that `data` are written in, with digits, signs and ASCII, or all."""

    contract: ClassVar[dict[str, Any]] = {"min_count": 20}
    contract_input: ClassVar[Any] = staticmethod(_encoder)

    def apply(self, value: Network, ctx: Context) -> Network:
        from mapsto.nn.edits.channels import Channels
        from mapsto.nn.edits.embedding_rows import rows_of
        from mapsto.nn.network.examples import example_batch
        from mapsto.nn.prune.checks import require_prunable
        from mapsto.nn.prune.reduced_tokenizer import reduced
        from mapsto.nn.prune.token_table import token_table

        before = value.signature.preprocessing
        if before.kind != "text" or ASSET not in value.assets:
            raise DomainError(
                "the network has no tokenizer to reduce",
                where=self.name,
                hint="give an encoder that reads texts, as networks.minilm",
            )
        module = require_prunable(value, where=self.name)
        path, layer = token_table(module, example_batch(value), where=self.name)
        if len(rows_of(layer)) != layer.num_embeddings:
            raise DomainError(
                "its ids are mapped to rows already", where=self.name, hint="use this in place of prune.embedding_rows"
            )
        ids = self._ids(ctx, layer.num_embeddings)
        counts = _counted(ids, layer.num_embeddings)
        used = [*(counts >= self.min_count).nonzero()[0].tolist(), before.padding]
        tokenizer, former = reduced(value.assets[ASSET], used, characters=self.characters)
        if before.padding not in former:
            raise DomainError(
                f"its padding id {before.padding} is no token of its tokenizer",
                where=self.name,
                hint="prune.embedding_rows keeps the tokenizer",
            )
        if len(former) == layer.num_embeddings:
            return value
        padding = former.index(before.padding)
        name = f"{path}.weight" if path else "weight"
        edit = Channels.of(
            {name: {0: former}},
            sizes={name: {0: layer.num_embeddings}},
            attributes=_attributes(module, path, layer, len(former), padding),
        )
        read = dataclasses.replace(before, tokenizer=digest(tokenizer), padding=padding, tokenizer_json=tokenizer)
        small = value.with_module(
            edit.apply(module),
            edit,
            assets={**value.assets, ASSET: tokenizer},
            signature=dataclasses.replace(value.signature, preprocessing=read),
        )
        self._require_same(value, small, ids, former)
        counts[before.padding] = 0
        share = 100 * int(counts[former].sum()) / max(int(counts.sum()), 1)
        ctx.log(f"{len(former):,} of {layer.num_embeddings:,} tokens stay, {share:.4g} % of those in the data")
        return small

    def _ids(self, ctx: Context, rows: int) -> NDArray[np.int64]:
        from mapsto.data.checks import require_some

        where = f"{self.name}: data"
        inputs = require_some(ctx.dataset(self.data), where=where).inputs
        if inputs.dtype.kind not in "iu":
            raise DataError(f"its inputs are {inputs.dtype}, no token ids", where=where, hint="give datasets.text(…)")
        if int(inputs.min()) < 0 or int(inputs.max()) >= rows:
            raise DataError(
                f"its ids run from {int(inputs.min())} to {int(inputs.max())}, the vocabulary has {rows:,}",
                where=where,
                hint="tokenize with the network's own tokenizer",
            )
        return inputs.reshape(len(inputs), -1).astype("int64")

    def _require_same(self, big: Network, small: Network, ids: NDArray[np.int64], former: Sequence[int]) -> None:
        """Raises `DomainError` where texts whose tokens all stay give other answers, as where an encoder counts by its padding id."""
        import numpy as np
        import torch

        shape = big.signature.inputs[0].shape[1:]
        places = np.full(int(ids.max()) + 1, -1)
        places[[old for old in former if old < len(places)]] = [
            new for new, old in enumerate(former) if old < len(places)
        ]
        rows = ids[: 64 * _COMPARED]
        rows = rows[(places[rows] >= 0).all(1)][:_COMPARED]
        if not len(rows) or len(shape) != 1:
            return
        rows = rows[:, : big.signature.preprocessing.length]
        with torch.inference_mode():
            wanted, given = big.module()(torch.from_numpy(rows)), small.module()(torch.from_numpy(places[rows]))
        if float((wanted - given).abs().max()) > _TOLERANCE * float(wanted.abs().max()):
            raise DomainError(
                "the encoder gives other answers where the same tokens have other ids",
                where=self.name,
                hint="prune.embedding_rows keeps the ids",
            )


def _counted(ids: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    import numpy as np

    return np.bincount(ids.reshape(-1), minlength=rows)


def _attributes(
    module: nn.Module, path: str, layer: nn.Embedding, rows: int, padding: int
) -> dict[str, dict[str, int]]:
    """The sizes and the padding ids that change with the table."""
    found: dict[str, dict[str, int]] = {path: {"num_embeddings": rows}}
    if isinstance(layer.padding_idx, int):
        found[path]["padding_idx"] = padding
    if isinstance(getattr(module, "padding", None), int):
        found.setdefault("", {})["padding"] = padding
    return found

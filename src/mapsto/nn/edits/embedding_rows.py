"""Drop rows of an embedding: ids keep their meaning, and those without a row of their own share one.

``e(id) = E'[map(id)]`` with E' the rows that stay and a map from every id to one of them, so that the tokenizer stays as it is.
"""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from mapsto.errors import DomainError
from mapsto.kinds import Edit
from mapsto.nn.edits.channels import Kept

__all__ = ["EmbeddingRows", "rows_of"]


class EmbeddingRows(Edit):
    """Rows kept of one embedding; it takes the ids that it took before.

    >>> net = nn.Sequential(nn.Embedding(5, 1))
    >>> net[0].weight.data = torch.arange(5.0)[:, None]
    >>> kept = Kept(of=5, indices="0,3-4", at=(("0.weight", 0),))
    >>> EmbeddingRows(path="0", kept=kept, unknown=3).apply(net)(torch.arange(5)).flatten().tolist(), net[0].weight.shape
    ([0.0, 3.0, 3.0, 3.0, 4.0], torch.Size([3, 1]))
    """

    path: str
    """Path of the embedding."""
    kept: Kept
    """The rows that stay."""
    unknown: int = Field(ge=0)
    """The row, of those before, that stands for those dropped."""

    def __post_init__(self) -> None:
        if self.unknown not in self.kept.numbers:
            raise DomainError(
                f"row {self.unknown} stands for the dropped ones but is dropped itself",
                where=f"embedding_rows: {self.path}",
                hint="keep it",
            )

    def apply(self, module: nn.Module) -> nn.Module:
        """Raises `DomainError` where there is no such embedding, or it has another number of rows."""
        layer = dict(module.named_modules()).get(self.path)
        if type(layer) not in (nn.Embedding, _Mapped):
            raise DomainError(
                "there is no plain nn.Embedding",
                where=f"embedding_rows: {self.path}",
                hint="edits replay in the order they were made",
            )
        known = cast("nn.Embedding", layer)
        if known.num_embeddings != self.kept.of:
            raise DomainError(
                f"it has {known.num_embeddings} rows, not {self.kept.of}",
                where=f"embedding_rows: {self.path}",
                hint="edits replay in the order they were made",
            )
        device = known.weight.device
        numbers = torch.tensor(self.kept.numbers, device=device)
        places = torch.zeros(self.kept.of, dtype=torch.int64, device=device)
        places[numbers] = torch.arange(len(numbers), device=device)
        gone = torch.ones(self.kept.of, dtype=torch.bool, device=device)
        gone[numbers] = False
        places[gone] = places[self.unknown]
        before = rows_of(known)
        known.register_buffer("rows", places[before.to(device)], persistent=False)  # it follows from the edit
        known.weight = nn.Parameter(known.weight.detach()[numbers], known.weight.requires_grad)
        known.num_embeddings = len(numbers)
        if known.padding_idx is not None:  # pyright: ignore[reportUnnecessaryComparison]
            known.padding_idx = int(places[known.padding_idx])
        known.__class__ = _Mapped  # its path and its tensor keep their names
        return module

    def follow(self, name: str, tensor: Tensor) -> Tensor | None:
        if name != f"{self.path}.weight" or tensor.shape[0] != self.kept.of:
            return tensor
        return tensor[torch.tensor(self.kept.numbers, device=tensor.device)]


class _Mapped(nn.Embedding):
    """An embedding whose ids are places in a map."""

    rows: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return _embedding(input, self.weight, self)


def _arguments(input: Tensor, weight: Tensor, layer: _Mapped) -> tuple[Tensor, Tensor]:
    return input, weight


@wrap_torch_function(_arguments)
def _embedding(input: Tensor, weight: Tensor, layer: _Mapped) -> Tensor:
    """One call of ids and weight to whoever watches calls (`mapsto.nn.network.call_sites`), as a plain embedding is."""
    return nn.functional.embedding(
        layer.rows[input],
        weight,
        layer.padding_idx,
        layer.max_norm,
        layer.norm_type,
        layer.scale_grad_by_freq,
        layer.sparse,
    )


def rows_of(layer: nn.Embedding) -> Tensor:
    """The row of each id, shape (ids,), int64."""
    return layer.rows if isinstance(layer, _Mapped) else torch.arange(layer.num_embeddings)

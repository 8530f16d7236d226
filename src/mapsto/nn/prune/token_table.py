"""Which embedding of a network holds the vectors of its tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mapsto.errors import DomainError
from mapsto.nn.network.layer_calls import run_watched

__all__ = ["token_table"]


def token_table(module: nn.Module, example: Any, *, where: str) -> tuple[str, nn.Embedding]:
    """The path of the embedding that takes the network's input, and the embedding.

    Raises `DomainError` where there is none, or its rows are an output's weights too.
    """
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

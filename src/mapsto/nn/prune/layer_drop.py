"""Blocks that could be left out: parts of a list or a sequence that give a tensor of the shape they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.nn.network.layer_calls import run_watched
from mapsto.nn.train.calibration_batches import LabelledBatch

__all__ = ["find_blocks", "influences", "losses_without"]


def find_blocks(module: nn.Module, example: Tensor) -> list[str]:
    """Paths of the blocks that run once on `example`, shape (N, ...), the outermost of those within each other.

    A block has parts of its own; a layer is none, and neither is a stage, that is a sequence of blocks.

    >>> class Block(nn.Module):
    ...     def __init__(self, inputs, outputs):
    ...         super().__init__()
    ...         self.layer = nn.Linear(inputs, outputs)
    ...
    ...     def forward(self, x):
    ...         return self.layer(x).relu()
    >>> find_blocks(nn.Sequential(nn.Linear(2, 3), Block(3, 3), Block(3, 2)), torch.ones(1, 2))
    ['1']
    """
    candidates = {
        f"{path}.{name}" if path else name: part
        for path, parent in module.named_modules()
        if isinstance(parent, (nn.ModuleList, nn.Sequential))
        for name, part in parent.named_children()
        if not isinstance(part, (nn.ModuleList, nn.Sequential)) and next(part.children(), None) is not None
    }
    calls: Counter[str] = Counter()
    alike: set[str] = set()

    def note(path: str, given: tuple[Any, ...], output: Any) -> None:
        calls[path] += 1
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor) and given[0].shape == output.shape:
            alike.add(path)

    run_watched(module, candidates, [example], note)
    found = [
        path
        for path in candidates
        if path in alike and calls[path] == 1 and any(True for _ in candidates[path].parameters())
    ]
    return [path for path in found if not any(path.startswith(f"{outer}.") for outer in found)]


def influences(module: nn.Module, blocks: Iterable[str], batches: Iterable[Tensor]) -> dict[str, float]:
    """Path → 1 − mean cosine of what a block is given and what it gives, over samples and positions; tokens of padding do not count."""
    sums: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    padding: Any = getattr(module, "padding", None)
    parts = {path: module.get_submodule(path) for path in blocks}
    for batch in batches:
        ids = batch if isinstance(padding, int) and batch.dtype == torch.int64 else None

        def note(path: str, given: tuple[Any, ...], output: Tensor, ids: Tensor | None = ids) -> None:
            cosines = functional.cosine_similarity(given[0].double(), output.double(), 1 if output.ndim == 4 else -1)
            if ids is not None and cosines.shape == ids.shape:
                cosines = cosines[ids != padding]
            sums[path] += float(cosines.sum())  # type: ignore[assignment]
            counts[path] += cosines.numel()

        run_watched(module, parts, [batch], note)
    return {path: 1 - sums[path] / max(counts[path], 1) for path in parts}


def losses_without(module: nn.Module, blocks: Iterable[str], batches: Iterable[LabelledBatch]) -> dict[str, float]:
    """Path → mean cross-entropy with that block left out."""
    totals: Counter[str] = Counter()
    parts = {path: module.get_submodule(path) for path in blocks}
    samples = 0
    for batch in batches:
        samples += len(batch.labels)
        for path, part in parts.items():
            handle = part.register_forward_hook(lambda _, given, output: given[0])
            try:
                with torch.no_grad():
                    loss = functional.cross_entropy(module(batch.inputs), batch.labels, reduction="sum")
            finally:
                handle.remove()
            totals[path] += float(loss)  # type: ignore[assignment]
    return {path: totals[path] / max(samples, 1) for path in parts}

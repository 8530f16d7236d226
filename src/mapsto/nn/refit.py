"""Fit the weights of a pruned network's layers, one after another, to what its original computes: linear least squares.

``min_Δ Σ ‖y − (W + Δ) x − b‖² + λ ‖Δ‖²`` over samples and places, with x what now comes into the layer, y what the original's layer
gives in the channels that are left, and λ in units of x's mean square: a weight that the samples say nothing of stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mapsto.nn.edits.fold_batch_norm import foldable_pairs
from mapsto.nn.moments import watch
from mapsto.nn.sites import trace

__all__ = ["Rows", "fittable", "refitted", "rows"]


class Rows(NamedTuple):
    """A layer's inputs and outputs at some places of some samples."""

    inputs: Tensor
    """(R, inputs of a weight), of a convolution as its kernel sees them: (R, C · kh · kw)."""
    outputs: Tensor
    """(R, outputs)."""


def fittable(module: nn.Module, example: Tensor) -> list[str]:
    """Paths of the linear layers and plain 2-d convolutions that run once, in the order they run."""
    runs: Counter[str] = Counter()

    def count(path: str, *_: object) -> None:
        runs[path] += 1

    watch(module, [path for path, layer in module.named_modules() if _is_plain(layer)], [example], count)
    return [path for path, count in runs.items() if count == 1]


def rows(
    module: nn.Module, batches: Sequence[Tensor], path: str, places: int, *, only: str | None = None
) -> Iterator[Rows]:
    """A layer's rows for each batch, at `places` of each sample that a seed fixes; with `only` the other part is empty."""
    layer = module.get_submodule(path)
    found: list[Rows] = []
    generator = torch.Generator()

    def hook(_: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        found.append(_picked(layer, given[0], result, places, generator, only))
        raise _ReachedError

    handle = layer.register_forward_hook(hook)
    try:
        for number, batch in enumerate(batches):
            generator.manual_seed(number)
            try:
                with torch.no_grad():
                    module(batch)
            except _ReachedError:
                yield found.pop()
    finally:
        handle.remove()


def refitted(
    module: nn.Module,
    original: nn.Module,
    batches: Sequence[Tensor],
    kept: Mapping[str, Tensor],
    *,
    places: int,
    ridge: float,
) -> nn.Module:
    """`module`, changed in place.

    Parameters
    ----------
    module, original
        In evaluation mode, on the device of the batches.
    batches
        Inputs, each (N, ...).
    kept
        Path of a layer → which of its original's outputs it still has, (outputs,) int64, in the order the layers run.
    places
        How many places of each map are taken.
    ridge
        λ.
    """
    norms = dict(foldable_pairs(module, trace(module, batches[0][:2])))
    for path, channels in kept.items():
        layer = cast("Any", module.get_submodule(path))
        norm = cast("Any", module.get_submodule(norms[path])) if path in norms else None
        if layer.bias is None and norm is None:
            continue
        wanted = [part.outputs[:, channels] for part in rows(original, batches, path, places, only="outputs")]
        given = [part.inputs for part in rows(module, batches, path, places, only="inputs")]
        weight, shift = _fitted(layer, torch.cat(given), torch.cat(wanted), ridge)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(shift)
            elif norm is not None:  # what is added to its input is taken from its mean
                norm.running_mean.sub_(shift)
    return module


class _ReachedError(Exception):
    """Ends a forward pass."""


def _is_plain(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.padding_mode == "zeros")


def _picked(
    layer: nn.Module, given: Tensor, result: Tensor, places: int, generator: torch.Generator, only: str | None
) -> Rows:
    empty = given.new_zeros(0)
    if isinstance(layer, nn.Linear):
        inputs, outputs = (
            given.reshape(len(given), -1, given.shape[-1]),
            result.reshape(len(result), -1, result.shape[-1]),
        )
        chosen = _chosen(inputs.shape[:2], places, generator, given.device)
        at = torch.arange(len(given), device=given.device)[:, None]
        return Rows(
            empty if only == "outputs" else inputs[at, chosen].flatten(0, 1),
            empty if only == "inputs" else outputs[at, chosen].flatten(0, 1),
        )
    height, width = result.shape[-2:]
    chosen = _chosen((len(given), height * width), places, generator, given.device)
    down, across = chosen // width, chosen % width
    at = torch.arange(len(given), device=given.device)[:, None]
    outputs = empty if only == "inputs" else result.permute(0, 2, 3, 1)[at, down, across].flatten(0, 1)
    if only == "outputs":
        return Rows(empty, outputs)
    convolution = cast("nn.Conv2d", layer)
    padded = nn.functional.pad(given, convolution._reversed_padding_repeated_twice).permute(0, 2, 3, 1)
    (kh, kw), (sh, sw), (dh, dw) = convolution.kernel_size, convolution.stride, convolution.dilation
    rows_of = down[..., None, None] * sh + torch.arange(kh, device=given.device)[:, None] * dh
    columns = across[..., None, None] * sw + torch.arange(kw, device=given.device) * dw
    patches = padded[at[..., None, None], rows_of, columns]  # (N, places, kh, kw, C)
    return Rows(patches.permute(0, 1, 4, 2, 3).flatten(2).flatten(0, 1), outputs)


def _chosen(shape: Sequence[int], places: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Places of each sample, (N, P): all where there are not more, else as many at random."""
    samples, there = shape
    if there <= places:
        return torch.arange(there, device=device).expand(samples, -1)
    return torch.randint(there, (samples, places), generator=generator).to(device)


def _fitted(layer: Any, inputs: Tensor, outputs: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The weight and the bias, in the layer's type."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    shape, start = layer.weight.shape, layer.weight.detach().double().flatten(1)
    x = inputs.double().unflatten(1, (groups, -1)).transpose(0, 1)  # (groups, R, inputs of a weight)
    y = outputs.double().unflatten(1, (groups, -1)).transpose(0, 1)
    before = start.unflatten(0, (groups, -1))
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    x, y = x - x_mean, y - y_mean
    gram = x.transpose(1, 2) @ x
    level = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(torch.float64).tiny)
    gram.diagonal(dim1=1, dim2=2).add_(ridge * level[:, None])
    change = torch.linalg.solve(gram, x.transpose(1, 2) @ (y - x @ before.transpose(1, 2)))
    after = before + change.transpose(1, 2)
    shift = (y_mean - x_mean @ after.transpose(1, 2)).flatten()
    return after.flatten(0, 1).view(shape).to(layer.weight.dtype), shift.to(layer.weight.dtype)

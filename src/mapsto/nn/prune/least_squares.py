"""Fit the weights of a pruned network's layers, one after another, to what its original computes: linear least squares.

``min_Δ Σ ‖y − (W + Δ) x − b‖² + λ ‖Δ‖²`` over samples and places, with x what now comes into the layer, y what the original's layer
gives in the channels that are left, and λ in units of x's mean square: a weight that the samples say nothing of stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.nn.edits.fold_batch_norm import foldable_pairs
from mapsto.nn.network.call_sites import trace
from mapsto.nn.network.layer_calls import EndPass, run_watched

__all__ = ["fittable", "inputs_at", "outputs_at", "refitted"]


def fittable(module: nn.Module, example: Tensor) -> list[str]:
    """Paths of the linear layers and 2-d convolutions that run once, in the order they run.

    A convolution of another class is one of them where it pads with zeros and convolves, as those that pad like TensorFlow do.
    """
    runs: Counter[str] = Counter()
    layers = {path: layer for path, layer in module.named_modules() if _is_linear_map(layer)}

    def count(path: str, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        known = isinstance(layers[path], nn.Linear) or _padding(layers[path], arguments[0], result) is not None
        runs[path] += 1 if known else 2

    run_watched(module, layers, [example], count)
    return [path for path, count in runs.items() if count == 1]


def inputs_at(module: nn.Module, batches: Sequence[Tensor], path: str, places: int) -> Tensor:
    """What a layer's weights are multiplied with at `places` of each sample that a seed fixes, (R, inputs of a weight).

    Of a convolution as its kernel sees them: (R, C · kh · kw). A pass ends at the layer.
    """
    layer = module.get_submodule(path)
    rows: list[Tensor] = []

    def keep(_: str, arguments: tuple[Tensor, ...], result: Tensor) -> None:
        at = _chosen(result, layer, places, len(rows))
        rows.append(_inputs(layer, arguments[0], result, at))
        raise EndPass

    run_watched(module, {path: layer}, batches, keep)
    return torch.cat(rows)


def outputs_at(
    module: nn.Module, batches: Sequence[Tensor], kept: Mapping[str, Tensor], places: int
) -> dict[str, Tensor]:
    """Path → what the layer gives there, (R, its outputs that are `kept`), of all layers in one pass."""
    rows: dict[str, list[Tensor]] = {path: [] for path in kept}
    layers = {path: module.get_submodule(path) for path in kept}

    def keep(path: str, _: tuple[Any, ...], result: Tensor) -> None:
        layer = layers[path]
        at = _chosen(result, layer, places, len(rows[path]))
        rows[path].append(_outputs(layer, result, at)[:, kept[path]])

    run_watched(module, layers, batches, keep)
    return {path: torch.cat(parts) for path, parts in rows.items()}


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
    wanted = outputs_at(original, batches, kept, places)
    for path in kept:
        layer = cast("Any", module.get_submodule(path))
        norm = cast("Any", module.get_submodule(norms[path])) if path in norms else None
        if layer.bias is None and norm is None:
            continue
        weight, shift = _fitted(layer, inputs_at(module, batches, path, places), wanted[path], ridge)
        with torch.no_grad():
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(shift)
            elif norm is not None:  # what is added to its input is taken from its mean
                norm.running_mean.sub_(shift)
    return module


def _is_linear_map(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear or (isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros")


def _padding(layer: nn.Module, inputs: Tensor, result: Tensor) -> list[int] | None:
    """The zeros left, right, above and below with which a convolution computes its result; None where none give it.

    Of a class of its own they are tried: as its fields say, and as many as its result's size wants, the odd one right and below.
    """
    convolution = cast("nn.Conv2d", layer)
    own = list(convolution._reversed_padding_repeated_twice)
    if type(convolution) is nn.Conv2d:
        return own
    wanted: list[int] = []
    for axis in (-1, -2):
        stride, dilation, kernel = (
            each[axis] for each in (convolution.stride, convolution.dilation, convolution.kernel_size)
        )
        more = max((result.shape[axis] - 1) * stride + dilation * (kernel - 1) + 1 - inputs.shape[axis], 0)
        wanted += [more // 2, more - more // 2]
    return next((pad for pad in (own, wanted) if _gives(convolution, inputs, pad, result)), None)


def _gives(layer: nn.Conv2d, inputs: Tensor, padding: list[int], result: Tensor) -> bool:
    padded = nn.functional.pad(inputs, padding)
    if any(padded.shape[axis] < layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1 for axis in (-1, -2)):
        return False
    given = nn.functional.conv2d(padded, layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups)
    return given.shape == result.shape and torch.allclose(
        given, result, rtol=1e-4, atol=1e-5 * float(result.abs().max())
    )


def _chosen(result: Tensor, layer: nn.Module, places: int, number: int) -> Tensor:
    """Places of each sample of batch `number`, (N, P): all where there are not more, else as many at random."""
    there = result[0].numel() // (result.shape[-1] if isinstance(layer, nn.Linear) else result.shape[1])
    if there <= places:
        return torch.arange(there, device=result.device).expand(len(result), -1)
    drawn = torch.randint(there, (len(result), places), generator=torch.Generator().manual_seed(number))
    return drawn.to(result.device)


def _outputs(layer: nn.Module, result: Tensor, at: Tensor) -> Tensor:
    """The layer's outputs at the places, (R, outputs)."""
    last = result if isinstance(layer, nn.Linear) else result.movedim(1, -1)
    return _rows(last.reshape(len(result), -1, last.shape[-1]), at)


def _inputs(layer: nn.Module, inputs: Tensor, result: Tensor, at: Tensor) -> Tensor:
    """What makes these, (R, inputs of a weight)."""
    if isinstance(layer, nn.Linear):
        return _rows(inputs.reshape(len(inputs), -1, inputs.shape[-1]), at)
    convolution, width = cast("nn.Conv2d", layer), result.shape[-1]
    padding = _padding(convolution, inputs, result)
    if padding is None:
        raise DomainError(
            f"{type(convolution).__name__} computes another thing for another input", where="prune.reconstruct"
        )
    padded = nn.functional.pad(inputs, padding).permute(0, 2, 3, 1)
    (kh, kw), (sh, sw), (dh, dw) = convolution.kernel_size, convolution.stride, convolution.dilation
    down = (at // width)[..., None, None] * sh + torch.arange(kh, device=inputs.device)[:, None] * dh
    across = (at % width)[..., None, None] * sw + torch.arange(kw, device=inputs.device) * dw
    samples = torch.arange(len(inputs), device=inputs.device)[:, None, None, None]
    patches = padded[samples, down, across]  # (N, places, kh, kw, C)
    return patches.permute(0, 1, 4, 2, 3).flatten(2).flatten(0, 1)


def _rows(values: Tensor, at: Tensor) -> Tensor:
    """Rows (N · P, features) of values (N, places, features)."""
    return values[torch.arange(len(values), device=values.device)[:, None], at].flatten(0, 1)


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

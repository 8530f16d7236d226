"""How far a pruned network's answers are from its original's: what the rankings are compared by.

``mean KL(p ‖ q)`` of the classes' probabilities, p of the original and q of the pruned, for a network with classes; else the squared
difference of the outputs in units of their variance. No labels are needed, and without samples made-up inputs do: what channels a layer can
spare shows there, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.network.examples import example_inputs
from mapsto.nn.network.inference import compact, evaluating

__all__ = ["distance_from", "made_up_inputs"]

MADE_UP = 128
"""Inputs, where there are no samples."""
_BATCH = 64


def made_up_inputs(network: Network) -> list[Tensor]:
    """Batches of made-up inputs, always the same: smooth random images, texts of random tokens, else standard normal numbers.

    Images are normal numbers at a quarter of the size, enlarged, of variance 1. A network answers to independent pixels with one or two of
    its classes whatever it has lost: of three rankings of a ResNet-20 they put the best last, smooth images first.
    """
    (inputs,) = example_inputs(network.signature, MADE_UP)
    if inputs.ndim == 4 and inputs.is_floating_point():
        coarse = [max(size // 4, 2) for size in inputs.shape[2:]]
        drawn = torch.randn((*inputs.shape[:2], *coarse), generator=torch.Generator().manual_seed(0))
        inputs = functional.interpolate(drawn, size=inputs.shape[2:], mode="bilinear").to(inputs.dtype)
        inputs = inputs / inputs.std()
    return list(inputs.split(_BATCH))


def distance_from(network: Network, batches: Iterable[Tensor], ctx: Context) -> Callable[[Network], float]:
    """Pruned network → how far its answers to `batches`, prepared inputs (N, ...), are from those of `network`, from 0.

    Infinite where an answer is not finite. Embeddings of another width are compared by their products with each other. `batches` are
    asked for when the first distance is.
    """

    @cache
    def original() -> tuple[list[Tensor], Tensor]:
        given = list(batches)
        return given, _answers(network.module(), given, ctx)

    def distance(pruned: Network) -> float:
        given, wanted = original()
        classes = network.signature.classes is not None and wanted.ndim == 2 and wanted.shape[1] > 1
        found = _answers(pruned.module(), given, ctx)
        if found.shape != wanted.shape:
            value = _squared(_products(found), _products(wanted))
        elif classes:
            p, q = wanted.log_softmax(1), found.log_softmax(1)
            value = float(functional.kl_div(q, p, reduction="none", log_target=True).sum(1).mean())
        else:
            value = _squared(found, wanted)
        return value if math.isfinite(value) else math.inf

    return distance


def _squared(found: Tensor, wanted: Tensor) -> float:
    """Mean squared difference in units of the variance of what is wanted."""
    return float((found - wanted).square().mean() / wanted.var().clamp_min(torch.finfo(wanted.dtype).tiny))


def _products(answers: Tensor) -> Tensor:
    """Products of each two answers in units of their mean square, shape (N, N)."""
    rows = answers.flatten(1) - answers.flatten(1).mean(0)
    return rows @ rows.T / rows.square().sum(1).mean().clamp_min(torch.finfo(rows.dtype).tiny)


def _answers(module: nn.Module, batches: list[Tensor], ctx: Context) -> Tensor:
    """Outputs (N, ...), float64 on the CPU: distances of much pruned candidates may differ in late digits alone."""
    module = compact(module.to(ctx.device))
    with evaluating(module), torch.no_grad():
        return torch.cat([module(batch.to(ctx.device)).double().cpu() for batch in batches])

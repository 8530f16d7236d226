"""A learned comparison: a small network is shown a class and a query side by side and says how much they belong together.

``r(q, k) = sigmoid(g(c_k, f(q)))`` with ``c_k`` the mean of the embeddings of the support of class k (Sung et al., "Learning to Compare:
Relation Network for Few-Shot Learning", 2018; there their sum, which goes with one number of shots). Where the embedding is a flattened
feature map, g is two 3×3 convolutions and two linear layers as in the paper; where it is a row of numbers, three linear layers that
are given ``|c_k − f(q)|`` too, without which they learn to compare slowly. Its parameters are the learner's own tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from mapsto.kinds import Adaptation
from mapsto.nn.kernels.conv import fast_conv
from mapsto.nn.kernels.memory_layout import channels_last
from mapsto.nn.kernels.pair_norm_pool import pair_norm_relu_pool
from mapsto.nn.meta.class_means import centroids

__all__ = ["feature_scores", "first_tensors", "map_shape"]


_PAIRS = 4096
"""Pairs of maps that are compared at a time, which bounds the memory."""


def first_tensors(*, size: int, hidden: int, last: int = 8, channels: int | None = None) -> dict[str, Tensor]:
    """Parameters of g drawn from torch's global generator (He et al., 2015).

    Parameters
    ----------
    size
        D, of an embedding.
    hidden, last
        Widths of the first hidden layer, or of both convolutions, and of the last hidden layer.
    channels
        Of the square feature map that an embedding is; None for a row.
    """
    if channels is None:
        layers = {"first": (hidden, 3 * size), "second": (last, hidden), "out": (1, last)}
    else:
        _, side, _ = map_shape(size, channels)
        for _ in range(2):
            side = max(side // 2, 1)
        layers = {
            "conv_1": (hidden, 2 * channels, 3, 3),
            "conv_2": (hidden, hidden, 3, 3),
            "second": (last, hidden * side**2),
            "out": (1, last),
        }
    tensors: dict[str, Tensor] = {}
    for name, shape in layers.items():
        deviation = math.sqrt((1 if name == "out" else 2) / math.prod(shape[1:]))
        tensors[f"~{name}.weight"] = torch.randn(shape) * deviation
        if name.startswith("conv"):
            tensors[f"~{name}.scale"] = torch.ones(hidden)
        tensors[f"~{name}.bias"] = torch.zeros(shape[0])
    return tensors


def map_shape(size: int, channels: int) -> tuple[int, int, int]:
    """Channels, height and width of the square feature map that an embedding of `size` numbers is.

    >>> map_shape(64 * 9, 64)
    (64, 3, 3)
    """
    side = math.isqrt(size // channels)
    return channels, side, side


def feature_scores(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    ways: int,
    adaptation: Adaptation,
) -> Tensor:
    """What g gives before the sigmoid, the log-odds of belonging together, shape (B, Q, ways), for support (B, S, D), query (B, Q, D)."""
    parameters = {name.removeprefix("~"): tensor.to(query) for name, tensor in adaptation.tensors.items()}
    classes = centroids(support, support_labels, ways)
    channels = cast("int | None", adaptation.settings.get("channels"))
    if channels is None:
        shape = (*query.shape[:-1], ways, query.shape[-1])
        pairs = (classes.unsqueeze(-3).expand(shape), query.unsqueeze(-2).expand(shape))
        joined = torch.cat([*pairs, (pairs[0] - pairs[1]).abs()], -1)
        hidden = linear(joined, parameters["first.weight"], parameters["first.bias"]).relu()
    else:
        hidden = _compared_maps(classes, query, map_shape(query.shape[-1], channels), parameters)
    hidden = linear(hidden, parameters["second.weight"], parameters["second.bias"]).relu()
    return linear(hidden, parameters["out.weight"], parameters["out.bias"]).squeeze(-1)


def _compared_maps(
    classes: Tensor, query: Tensor, maps: tuple[int, int, int], parameters: Mapping[str, Tensor]
) -> Tensor:
    """What both convolutions make of each class (B, ways, D) beside each query (B, Q, D), shape (B, Q, ways, hidden · side²).

    A convolution of two maps side by side is the sum of one of each, so the first runs once a map and not once a pair.
    """
    kernels = parameters["conv_1.weight"].split(maps[0], 1)
    of_class, of_query = (
        fast_conv(channels_last(part.reshape(-1, *maps)), kernel.contiguous())
        .unflatten(0, part.shape[:-1])
        .flatten(0, -5)
        for part, kernel in zip((classes, query), kernels, strict=True)
    )
    together = max(1, _PAIRS // math.prod(of_class.shape[:2]))
    compared = torch.cat([_of_pairs(of_class, some, parameters) for some in of_query.split(together, 1)], 1)
    return compared.view(*query.shape[:-1], *compared.shape[2:])


def _of_pairs(of_class: Tensor, of_query: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    first = pair_norm_relu_pool(of_class, of_query, parameters["conv_1.scale"], parameters["conv_1.bias"])
    second = fast_conv(first.flatten(0, 2), parameters["conv_2.weight"]).unsqueeze(0)
    alone = second.new_zeros(1, 1, *second.shape[2:])
    pooled = pair_norm_relu_pool(alone, second, parameters["conv_2.scale"], parameters["conv_2.bias"])
    return pooled.flatten(3).view(*first.shape[:3], -1)

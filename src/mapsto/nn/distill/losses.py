"""Losses of distillation: how a student's answers, layers or relations differ from a teacher's. Each a scalar, differentiable.

Layers are of shape (N, C, H, W) or (N, D); of two maps of unlike size the larger is averaged down to the smaller.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError
from mapsto.nn.distill.divergences import kl, pearson

__all__ = [
    "alike_in_size",
    "angles",
    "attention",
    "attention_map",
    "contrast",
    "correlations",
    "decoupled",
    "distances",
    "hierarchical",
    "hint",
    "similarity",
]


def decoupled(
    student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float, target: float, others: float
) -> Tensor:
    """``T² (target · KL(b_t ‖ b_s) + others · KL(p̂_t ‖ p̂_s))`` of logits (N, C) and labels (N,).

    b are the probabilities of the label and of all else, p̂ those of the other classes among themselves.

    >>> round(decoupled(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0, 2]), temperature=4, target=1, others=8).item(), 6)
    0.0
    """
    is_label = functional.one_hot(labels, student.shape[1]).bool()
    parts: list[tuple[Tensor, Tensor]] = []
    for logits in (student, teacher):
        cooled = logits / temperature
        rest = cooled[~is_label].view(len(logits), -1)
        binary = torch.stack([cooled[is_label], rest.logsumexp(1)], 1)
        parts.append((binary, rest))
    (ours, our_rest), (theirs, their_rest) = parts
    return (target * kl(ours, theirs) + others * kl(our_rest, their_rest)) * temperature**2


def correlations(student: Tensor, teacher: Tensor, *, temperature: float, inter: float, intra: float) -> Tensor:
    """``T² (inter · mean_i (1 − ρ(P_s[i], P_t[i])) + intra · mean_c (1 − ρ(P_s[:, c], P_t[:, c])))`` of logits (N, C).

    P are the softened probabilities, ρ is Pearson's correlation.
    """
    ours, theirs = (functional.softmax(logits / temperature, 1) for logits in (student, teacher))
    between, within = pearson(ours, theirs), pearson(ours.T, theirs.T)
    return (inter * (1 - between).mean() + intra * (1 - within).mean()) * temperature**2


def hint(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean squared difference of two layers with as many channels."""
    return functional.mse_loss(*alike_in_size(ours, theirs))


def attention_map(layer: Tensor) -> Tensor:
    """Where a layer (N, C, H, W) looks: the mean square over channels, flat and of length 1, shape (N, H · W).

    >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[0.0, 0.0]]]]))
    tensor([[1., 0.]])
    """
    return functional.normalize(layer.square().mean(1).flatten(1), dim=1)


def attention(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean squared difference of the attention maps of two layers, whose channels may differ in number.

    Raises `DomainError` for layers without places.
    """
    for layer, owner in ((ours, "student"), (theirs, "teacher")):
        if layer.ndim != 4:
            raise DomainError(
                f"a layer of the {owner} has shape {tuple(layer.shape)}, but attention needs maps (N, C, H, W)",
                hint="name convolutional layers",
            )
    ours, theirs = alike_in_size(ours, theirs)
    return (attention_map(ours) - attention_map(theirs)).square().mean()


def similarity(ours: Tensor, theirs: Tensor) -> Tensor:
    """``‖G_s − G_t‖²_F / N²`` with G the products of all pairs of samples of a layer (N, ...), each row of length 1."""
    products = [functional.normalize(layer.flatten(1) @ layer.flatten(1).T, dim=1) for layer in (ours, theirs)]
    return (products[0] - products[1]).square().mean()


def distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the pairwise distances of two embeddings (N, D) of the same samples, each in units of its mean."""
    whole = (embedding if embedding.dtype == torch.float64 else embedding.float() for embedding in (student, teacher))
    ours, theirs = (functional.pdist(embedding) for embedding in whole)
    return functional.smooth_l1_loss(ours / ours.mean(), theirs / theirs.mean())


def angles(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles that all triplets of samples form in two embeddings (N, D)."""
    cosines: list[Tensor] = []
    for embedding in (student, teacher):
        directions = functional.normalize(embedding[None] - embedding[:, None], dim=2)
        cosines.append(directions @ directions.mT)
    return functional.smooth_l1_loss(cosines[0], cosines[1])


def contrast(positive: Tensor, negative: Tensor, allowed: Tensor, *, samples: int) -> Tensor:
    """``−mean_i (log h(a_i) + Σ_j log(1 − h(b_ij)))`` with ``h(x) = x / (x + K_i / samples)``: which one is of the same sample.

    Parameters
    ----------
    positive, negative
        Likelihood ratios a, shape (N,), and b, (N, K).
    allowed
        Which negatives count, (N, K) of bool; K_i is their number.
    samples
        In the whole data.
    """
    noise = allowed.sum(1) / samples
    right = (positive / (positive + noise + 1e-7)).log()
    wrong = (noise[:, None] / (negative + noise[:, None] + 1e-7)).clamp_min(1e-30).log()
    return -(right + (wrong * allowed).sum(1)).mean()


def hierarchical(ours: Tensor, theirs: Tensor, sizes: tuple[int, ...] = (4, 2, 1)) -> Tensor:
    """Mean squared difference of two layers (N, C, H, W), as they are and averaged to maps of `sizes`, each half as heavy."""
    ours, theirs = alike_in_size(ours, theirs)
    loss, weight, total = functional.mse_loss(ours, theirs), 1.0, 1.0
    for size in sizes if ours.ndim == 4 else ():
        if size < ours.shape[2]:
            weight /= 2
            total += weight
            small = [functional.adaptive_avg_pool2d(layer, size) for layer in (ours, theirs)]
            loss = loss + weight * functional.mse_loss(small[0], small[1])
    return loss / total


def alike_in_size(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Two layers, the larger map averaged down to the smaller. Raises `DomainError` where one is a map, the other is not."""
    if ours.ndim != theirs.ndim:
        raise DomainError(
            f"a layer of the student has shape {tuple(ours.shape)}, the teacher's {tuple(theirs.shape)}",
            hint="match maps with maps and vectors with vectors",
        )
    if ours.ndim != 4 or ours.shape[2:] == theirs.shape[2:]:
        return ours, theirs
    if math.prod(ours.shape[2:]) > math.prod(theirs.shape[2:]):
        return functional.adaptive_avg_pool2d(ours, (theirs.shape[2], theirs.shape[3])), theirs
    return ours, functional.adaptive_avg_pool2d(theirs, (ours.shape[2], ours.shape[3]))

"""How far what a student computes is from what a teacher does: differentiable, 0 where they agree, each of a batch of N samples.

`kl`, `js`, `euclidean`, `cosine` and `correlation` compare answers sample by sample, `mmd` two sets of vectors of one size, `cka` two
layers of any size by how alike the samples are in each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError, nearest

__all__ = [
    "DIFFERENCES",
    "cka",
    "correlation",
    "cosine",
    "difference",
    "euclidean",
    "hsic",
    "js",
    "kl",
    "mmd",
    "pearson",
]


def kl(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """``T² KL(softmax(t / T) ‖ softmax(s / T))`` of logits (N, C); T² keeps the gradient's size (Hinton et al., 2015).

    >>> import torch
    >>> kl(torch.zeros(1, 3), torch.zeros(1, 3)).item()
    0.0
    """
    ours = functional.log_softmax(student / temperature, dim=-1)
    theirs = functional.log_softmax(teacher / temperature, dim=-1)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def euclidean(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """``T² ‖softmax(t / T) − softmax(s / T)‖²`` of logits (N, C): the Brier score of the student against the teacher.

    Brier, "Verification of forecasts expressed in terms of probability", 1950.

    >>> import torch
    >>> round(euclidean(torch.tensor([[9.0, 0.0]]), torch.tensor([[0.0, 9.0]])).item(), 2)
    2.0
    """
    ours, theirs = (functional.softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return (ours - theirs).square().sum(-1).mean() * temperature**2


def cosine(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """One minus the cosine of the centred logits (N, C): their scale and offset do not matter, nor does the temperature.

    >>> import torch
    >>> round(cosine(torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]])).item(), 6)
    0.0
    """
    ours = student - student.mean(-1, keepdim=True)
    theirs = teacher - teacher.mean(-1, keepdim=True)
    return (1 - functional.cosine_similarity(ours, theirs, dim=-1)).mean()


def js(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """``T² (KL(p_t ‖ m) + KL(p_s ‖ m)) / 2`` with p the softened probabilities of logits (N, C), m their mean; at most ``T² ln 2``.

    Lin, "Divergence Measures Based on the Shannon Entropy", 1991.

    >>> import torch
    >>> round(js(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])).item(), 4)
    0.6931
    """
    ours, theirs = (functional.log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    mean = torch.stack([ours, theirs]).logsumexp(0) - math.log(2)
    parts = [functional.kl_div(mean, each, reduction="batchmean", log_target=True) for each in (ours, theirs)]
    return (parts[0] + parts[1]) / 2 * temperature**2


def correlation(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """``T² mean (1 − ρ)`` with Pearson's correlation ρ of the softened probabilities of each sample; logits (N, C).

    Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022.

    >>> import torch
    >>> round(correlation(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item(), 6)
    0.0
    """
    ours, theirs = (functional.softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    return (1 - pearson(ours, theirs)).mean() * temperature**2


def pearson(ours: Tensor, theirs: Tensor) -> Tensor:
    """The correlation of each row of one matrix with that row of the other, shape (N,); 0 for a constant row."""
    ours, theirs = (rows - rows.mean(1, keepdim=True) for rows in (ours, theirs))
    return functional.cosine_similarity(ours, theirs, dim=1)


def mmd(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The squared maximum mean discrepancy of two sets of vectors (N, D): ``mean k(s, s') + mean k(t, t') − 2 mean k(s, t)``.

    k is Gaussian, its variance half the mean squared distance of the teacher's vectors. Which sample is which does not matter,
    nor does the temperature. Gretton et al., "A Kernel Two-Sample Test", 2012.

    >>> import torch
    >>> x = torch.arange(6.0).view(3, 2)
    >>> abs(mmd(x.flip(0), x).item()) < 1e-6
    True
    """

    def squares(one: Tensor, other: Tensor) -> Tensor:
        return (one[:, None] - other[None]).square().sum(-1)

    width = squares(teacher, teacher).mean().detach().clamp_min(1e-12)

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (-squares(one, other) / width).exp().mean()

    return kernel(student, student) + kernel(teacher, teacher) - 2 * kernel(student, teacher)


def cka(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """``1 − ‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F)`` of centred layers (N, ...): rotations and scales do not matter, nor does the temperature.

    It is too near 0 where a layer has more numbers than there are samples; `hsic` is not. Kornblith et al., "Similarity of Neural
    Network Representations Revisited", 2019.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
    >>> round(cka(x, 3 * x.flip(1)).item(), 6)
    0.0
    """
    centred = [layer.flatten(1) - layer.flatten(1).mean(0) for layer in (student, teacher)]
    ours, theirs = (layer @ layer.T for layer in centred)
    return 1 - (ours * theirs).sum() / (ours.norm() * theirs.norm()).clamp_min(torch.finfo(ours.dtype).tiny)


def hsic(grams: Tensor, others: Tensor) -> Tensor:
    """Unbiased Hilbert–Schmidt independence criteria (A, B) of products of samples (A, N, N) and (B, N, N), N at least 4.

    ``(tr K̃L̃ + 1ᵀK̃1 1ᵀL̃1 / ((N − 1)(N − 2)) − 2 1ᵀK̃L̃1 / (N − 2)) / (N (N − 3))`` with the diagonals set to 0 (Song et al., "Feature
    Selection via Dependence Maximization", 2012). Means over batches stay unbiased, so that large layers need not be kept (Nguyen et
    al., "Do Wide and Deep Networks Learn the Same Things?", 2021).
    """
    size = grams.shape[-1]
    if size < 4:
        raise DomainError(f"{size} samples are too few for an unbiased estimate", hint="give at least 4")
    empty = torch.eye(size, dtype=torch.bool, device=grams.device)
    ours, theirs = (products.masked_fill(empty, 0) for products in (grams, others))
    traces = ours.flatten(1) @ theirs.flatten(1).T
    rows, columns = ours.sum(2), theirs.sum(2)
    whole = rows.sum(1)[:, None] * columns.sum(1)[None] / ((size - 1) * (size - 2))
    return (traces + whole - 2 / (size - 2) * (rows @ columns.T)) / (size * (size - 3))


DIFFERENCES: dict[str, Callable[..., Tensor]] = {
    "cka": cka,
    "correlation": correlation,
    "cosine": cosine,
    "euclidean": euclidean,
    "js": js,
    "kl": kl,
    "mmd": mmd,
}


def difference(name: str, student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The difference of that name. Raises `DomainError` with the nearest known, or where the shapes differ."""
    if name not in DIFFERENCES:
        raise DomainError(f"unknown difference '{name}'", hint=nearest(name, DIFFERENCES))
    if student.shape != teacher.shape:
        raise DomainError(f"the student answers {tuple(student.shape)}, the teacher {tuple(teacher.shape)}")
    return DIFFERENCES[name](student, teacher, temperature=temperature)

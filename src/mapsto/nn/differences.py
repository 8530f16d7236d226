"""How far a student's answers are from a teacher's: differentiable, each the mean over a batch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from mapsto.errors import DomainError, nearest

__all__ = ["DIFFERENCES", "cosine", "difference", "euclidean", "kl", "relations"]


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


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the pairwise distances of two embeddings (N, D), (N, E) of the same samples, each in units of its mean.

    Park et al., "Relational Knowledge Distillation", 2019.

    >>> import torch
    >>> line = torch.tensor([[0.0], [1.0], [3.0]])
    >>> relations(line, 5 * line).item()
    0.0
    """
    ours, theirs = (functional.pdist(embedding.float()) for embedding in (student, teacher))
    return functional.smooth_l1_loss(ours / ours.mean(), theirs / theirs.mean())


DIFFERENCES: dict[str, Callable[..., Tensor]] = {"cosine": cosine, "euclidean": euclidean, "kl": kl}


def difference(name: str, student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """The difference of that name. Raises `DomainError` with the nearest known, or where the shapes differ."""
    if name not in DIFFERENCES:
        raise DomainError(f"unknown difference '{name}'", hint=nearest(name, DIFFERENCES))
    if student.shape != teacher.shape:
        raise DomainError(f"the student answers {tuple(student.shape)}, the teacher {tuple(teacher.shape)}")
    return DIFFERENCES[name](student, teacher, temperature=temperature)

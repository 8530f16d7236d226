"""Which samples a network is still right about once they are attacked, and whether the attacks can be believed.

An attack is too weak where gradients are masked: robust accuracy then does not fall to chance as ε grows, more steps are worse than fewer,
one step is better than many, or a network's answers to examples made for another one fall lower (Athalye, Carlini and Wagner,
"Obfuscated Gradients Give a False Sense of Security", 2018; Carlini et al., "On Evaluating Adversarial Robustness", 2019).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mapsto.nn.robust.auto_projected_gradient import auto_projected_gradient
from mapsto.nn.robust.fast_gradient import fast_gradient, gradient_of
from mapsto.nn.robust.margins import cross_entropies, difference_of_logits_ratio
from mapsto.nn.robust.projected_gradient import projected_gradient
from mapsto.nn.robust.threat import Scores, Threat

__all__ = ["Attack", "Examined", "clearly_more", "doubts", "radii"]

Attack = Callable[[Tensor, Tensor], Tensor]
"""Inputs (N, ...) and labels (N,) → inputs moved against them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """A network, samples, and what may be done to them. What is right is told as (N,) of bool.

    >>> x = torch.tensor([[1.0], [3.0]])
    >>> pair = Examined(scores=lambda x: torch.cat([x, -x], 1), x=x, labels=torch.tensor([0, 0]), threat=Threat("linf", 2.0))
    >>> pair.clean().tolist(), pair.fgsm(pair.clean()).tolist(), pair.pgd(pair.clean(), 5).tolist(), pair.apgd(pair.clean(), 5).tolist()
    ([True, True], [False, True], [False, True], [False, True])
    """

    scores: Scores
    x: Tensor
    labels: Tensor
    threat: Threat
    batch_size: int = 128

    def first(self, count: int) -> Examined:
        """The first samples alone."""
        return dataclasses.replace(self, x=self.x[:count], labels=self.labels[:count])

    def at(self, epsilon: float) -> Examined:
        """The same with another radius."""
        return dataclasses.replace(self, threat=dataclasses.replace(self.threat, epsilon=epsilon))

    def clean(self) -> Tensor:
        """Which samples are answered rightly as they are."""
        return torch.cat([self._right(x, y) for x, y in self._parts(self.x, self.labels)])

    def under(self, alive: Tensor, attack: Attack) -> Tensor:
        """Which of those that are `alive` (N,) are still right once they are attacked; the others are not attacked at all."""
        found = torch.zeros_like(alive)
        for chosen in alive.nonzero().flatten().split(self.batch_size):
            found[chosen] = self._right(attack(self.x[chosen], self.labels[chosen]), self.labels[chosen])
        return found

    def fgsm(self, alive: Tensor) -> Tensor:
        """… under one step."""
        return self.under(alive, partial(fast_gradient, self.scores, threat=self.threat))

    def pgd(self, alive: Tensor, steps: int, step: float | None = None, *, restarts: int = 1) -> Tensor:
        """… under several steps from each of several random starts."""
        attack = partial(projected_gradient, self.scores, threat=self.threat, steps=steps, step=step)
        for _ in range(restarts):
            alive = self.under(alive, attack)
        return alive

    def apgd(self, alive: Tensor, steps: int) -> Tensor:
        """… under APGD on cross-entropy, then on the ratio of differences of scores."""
        for margin in (cross_entropies, difference_of_logits_ratio):
            attack = partial(auto_projected_gradient, self.scores, threat=self.threat, steps=steps, margin=margin)
            alive = self.under(alive, attack)
        return alive

    def without_gradient(self, among: Tensor) -> int:
        """Of how many `among` (N,) of the samples the gradient is zero in every value of the input."""
        gradients = [gradient_of(self.scores, x, y, cross_entropies)[0] for x, y in self._parts(self.x, self.labels)]
        return int(((torch.cat(gradients).flatten(1) == 0).all(1) & among).sum())

    def _right(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return self.scores(x).argmax(1) == labels

    def _parts(self, x: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(x.split(self.batch_size), labels.split(self.batch_size), strict=True))


def radii(epsilon: float, threat: Threat, x: Tensor) -> tuple[float, ...]:
    """From a quarter of ε to four times it, and one at which nothing can be right: every image (N, ...) may become grey; of rows 8 ε.

    >>> radii(0.1, Threat("linf", 0.1, (0.0, 1.0)), torch.zeros(1, 4))
    (0.025, 0.05, 0.1, 0.2, 0.4, 0.5)
    """
    widest = 8 * epsilon
    if threat.bounds is not None:
        widest = 0.5 if threat.norm == "linf" else 0.5 * x[0].numel() ** 0.5
    usual = (factor * epsilon for factor in (0.25, 0.5, 1, 2, 4))
    return tuple(sorted({*(each for each in usual if each < widest), widest}))


def doubts(
    few: Examined, clean: Tensor, right: dict[str, Tensor], *, steps: int, widest: float, share: float
) -> list[str]:
    """What suggests that attacks are too weak, in words.

    Parameters
    ----------
    few, clean
        Some of the samples, and which of them are right as they are.
    right
        Attack → which of all samples are right under it.
    steps
        Steps of PGD.
    widest, share
        An ε at which nothing can be right, and the share of `few` that is, 0 to 1.
    """
    found: list[str] = []
    chance = 1 / int(few.scores(few.x[:1]).shape[1])
    if share > chance + 1 / len(few.x) ** 0.5:  # two standard deviations, of at most a half each
        found.append(
            f"at an epsilon of {widest:g}, where nothing can be right, {100 * share:.1f} % are (chance is {100 * chance:.1f})"
        )
    if clearly_more(few.pgd(clean, 2 * steps), few.pgd(clean, steps)):
        found.append(f"{2 * steps} steps leave more right than {steps}")
    if {"fgsm", "pgd"} <= right.keys() and clearly_more(right["pgd"], right["fgsm"]):
        found.append(f"{steps} steps leave more right than one")
    if {"transfer", "pgd"} <= right.keys() and clearly_more(right["pgd"], right["transfer"]):
        found.append("examples made for the surrogate mislead it more often than those made for itself")
    flat = few.without_gradient(clean)
    if flat > 0.05 * max(int(clean.sum()), 1):
        found.append(f"no gradient reaches the input of {flat} of {int(clean.sum())} samples")
    return found


def clearly_more(these: Tensor, those: Tensor) -> bool:
    """Whether more of `these` (N,) hold than of `those`, by more than the samples where they differ show by chance (McNemar, 1947).

    >>> clearly_more(torch.ones(20, dtype=torch.bool), torch.zeros(20, dtype=torch.bool))
    True
    >>> clearly_more(torch.tensor([True, False, True]), torch.tensor([False, True, False]))
    False
    """
    only, other = int((these & ~those).sum()), int((those & ~these).sum())
    return only - other > 2 * max(only + other, 1) ** 0.5

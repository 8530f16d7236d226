"""Robust accuracy while a network is trained, and whether training by one step has gone wrong in the way it does.

A network trained on one-step attacks may come to answer those alone: its accuracy under them rises, that under several steps falls to zero
within an epoch (catastrophic overfitting: Wong, Rice and Kolter, "Fast is Better than Free: Revisiting Adversarial Training", 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mapsto.kinds import Preprocessing, Samples
from mapsto.nn.network.inference import evaluating
from mapsto.nn.robust.fast_gradient import fast_gradient
from mapsto.nn.robust.projected_gradient import projected_gradient
from mapsto.nn.robust.threat import Threat, raw, scores_of

__all__ = ["MOST", "Judge"]

MOST = 512
"""Samples that are attacked at the end of each epoch, evenly over all: that is enough for four points, and less work than an epoch."""
_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Called with a module: its accuracy (%) on samples as they are, moved by one step, and moved by ten.

    `prefix` stands before the names: ``val_`` of held-out samples.
    """

    samples: Samples
    preprocessing: Preprocessing
    threat: Callable[[tuple[float, float] | None], Threat]
    prefix: str
    device: torch.device
    overfitted: Callable[[str], None] | None = None
    """Told of catastrophic overfitting."""
    seed: int = 0

    def __call__(self, module: nn.Module) -> dict[str, float]:
        chosen = self.samples.take(np.linspace(0, len(self.samples) - 1, min(MOST, len(self.samples))).astype(np.int64))
        x, bounds = raw(
            torch.as_tensor(np.asarray(chosen.inputs), device=self.device), self.preprocessing, where="validation"
        )
        labels, threat = torch.as_tensor(chosen.labels, device=self.device), self.threat(bounds)
        scores = scores_of(module, self.preprocessing)
        right = {"": 0, "fgsm_": 0, "robust_": 0}
        loss = 0.0
        with evaluating(module), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            for start in range(0, len(x), 128):
                part, of_part = x[start : start + 128], labels[start : start + 128]
                moved = {
                    "": part,
                    "fgsm_": fast_gradient(scores, part, of_part, threat),
                    "robust_": projected_gradient(scores, part, of_part, threat, steps=_STEPS),
                }
                for name, inputs in moved.items():
                    with torch.no_grad():
                        given = scores(inputs)
                    right[name] += int((given.argmax(1) == of_part).sum())
                    loss += float(cross_entropy(given, of_part, reduction="sum")) if name == "robust_" else 0.0
        found = {name: 100 * count / len(x) for name, count in right.items()}
        self._look(found)
        accuracies = {f"{self.prefix}{name}accuracy": value for name, value in found.items()}
        return accuracies | {f"{self.prefix}robust_error": 100 - found["robust_"], f"{self.prefix}loss": loss / len(x)}

    def _look(self, found: dict[str, float]) -> None:
        one, several = found["fgsm_"], found["robust_"]
        if self.overfitted is not None and one - several > 15 and several < one / 2:
            self.overfitted(
                f"catastrophic overfitting: one step of attack leaves {one:.1f} % right, {_STEPS} steps only {several:.1f} %; the network "
                "has learnt to answer one-step attacks alone and is not robust. Use method: pgd or trades, a smaller epsilon or step_size, "
                "or stop earlier: give `validation`, and the best epoch is the result"
            )

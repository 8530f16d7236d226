"""Fine-tuning at work: the loss of a batch with what keeps weights near where they began, and the one training with its folds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mapsto.nn.adapt.fast_gradient_sign import attacked
from mapsto.nn.adapt.fold_training import FoldTrainings
from mapsto.nn.adapt.l2_sp import penalty
from mapsto.nn.adapt.rate_range_test import RangeTest, has_blown_up, proposed, rates
from mapsto.nn.adapt.unfreezing import frozen_at, set_frozen
from mapsto.nn.train.losses import of_drawn
from mapsto.process import Live, Rows, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning_fabric import Fabric

    from mapsto.data.augment import Drawn
    from mapsto.kinds import Network, Preprocessing
    from mapsto.nn.train.augmenter import Augmenter
    from mapsto.nn.train.batches import Batch, Batches
    from mapsto.nn.train.loop import Training
    from mapsto.nn.train.optimizer import Optimisation

__all__ = ["FineTuning", "Objective", "range_test"]


@dataclass(kw_only=True)
class Objective:
    """The loss of a batch."""

    module: nn.Module
    """What is trained, whose parameters are those of what is called."""
    augmenter: Augmenter
    preprocessing: Preprocessing
    weights: Tensor | None
    """Of each class."""
    smoothing: float
    l2_sp: float = 0.0
    """α of L2-SP."""
    pretrained: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The parameters that L2-SP keeps near, with the values that they had."""
    adversarial: float = 0.0
    """ε of adversarial examples, which make up half of the loss; 0: none."""
    blocks: Sequence[Sequence[str]] = ()
    """Names of the parameters of each block, for gradual unfreezing."""
    unfreeze: int = 0
    """Steps after which one more block learns; 0: all from the beginning."""

    def __call__(self, call: nn.Module, item: Batch) -> Tensor:
        if self.unfreeze:
            set_frozen(self.module, self.blocks, frozen_at(item.step, len(self.blocks), self.unfreeze))
        drawn = self.augmenter(item.inputs, item.labels, item.step, self.preprocessing)
        loss = self._of(call, drawn)
        if self.adversarial:
            loss = (loss + self._of_attacked(call, drawn)) / 2
        if self.l2_sp:
            loss = loss + penalty(dict(self.module.named_parameters()), self._on(loss.device), self.l2_sp)
        return loss

    def _of(self, call: nn.Module, drawn: Drawn) -> Tensor:
        return of_drawn(call, drawn, weights=self.weights, smoothing=self.smoothing)

    def _of_attacked(self, call: nn.Module, drawn: Drawn) -> Tensor:
        from dataclasses import replace

        moved = attacked(drawn.x, lambda x: self._of(call, replace(drawn, x=x)), self.adversarial, self.preprocessing)
        return self._of(call, replace(drawn, x=moved))

    def _on(self, device: torch.device) -> Mapping[str, Tensor]:
        self.pretrained = {name: tensor.to(device) for name, tensor in self.pretrained.items()}
        return self.pretrained


def range_test(
    module: nn.Module,
    objective: Callable[[nn.Module], Objective],
    batches: Batches,
    *,
    optimisation: Optimisation,
    factors: Mapping[str, float] | None,
    mode: Callable[[nn.Module], object],
    fabric: Fabric,
    track: Callable[[Iterable[float]], Iterable[float]],
) -> RangeTest:
    """The loss of mini-batches at rates that rise until it blows up; `module` stays as it is."""
    trial = copy.deepcopy(module)
    call, optimizer = fabric.setup(trial, optimisation.make(trial, factors=factors))
    loss_of = objective(trial)
    tried: list[float] = []
    losses: list[float] = []
    for step, rate in enumerate(track(list(rates()))):
        mode(trial)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.zero_grad()
        loss = loss_of(call, batches[step])
        tried.append(rate)
        losses.append(float(cast("Tensor", fabric.all_reduce(loss.detach()))))
        if has_blown_up(losses):
            break
        fabric.backward(loss)
        optimizer.step()
    # The loss of a step is that of the weights which the rates before it have made.
    return RangeTest(tried, losses, proposed(tried, [*losses[1:], losses[-1]]))


class FineTuning(Live["Network"]):
    """A training with those on its folds.

    Parameters
    ----------
    training
        Of all examples.
    folds
        Those that say how good it is on others; None where held-out data or the training loss does.
    judge
        What says so, in words; empty for the training loss.
    chosen
        What the range test has found, where it was made.
    began
        Where the training loss decides: loss and accuracy (%) on the examples before any step.
    note
        Told, at the end, what decided.
    warn
        Told where nothing was held out and training has made the network worse even on its own examples.
    """

    def __init__(
        self,
        training: Training,
        folds: FoldTrainings | None,
        *,
        judge: str,
        chosen: Mapping[str, Any],
        began: Mapping[str, float],
        note: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.training, self._folds, self._judge = training, folds, judge
        self._chosen, self._began, self._note, self._warn = chosen, began, note, warn
        if folds is not None:
            folds.leader = training
        self.total = training.total

    @property
    def step(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps that were made."""
        return self.training.step

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the training is."""
        return self.training.done

    def advance(self, item: Any) -> Rows:
        rows = self.training.advance(item)
        if self.training.done and self._judge:
            self._note(self._outcome())
        elif self.training.done and self._began:
            self._warn_of_harm(self.training.account()["gap"]["training"])
        return rows

    def _warn_of_harm(self, after: Mapping[str, float]) -> None:
        accuracy, before = after["accuracy"], self._began["val_accuracy"]
        if accuracy < before:
            self._warn(
                f"training made the network worse: right on {accuracy:.1f} % of its own examples, before on {before:.1f}; lower "
                "learning_rate, or give folds or validation, by which the best epoch is kept"
            )

    def account(self) -> dict[str, Any]:
        account = self.training.account()
        if self._judge and "gap" in account:
            account["gap"]["held_out_by"] = self._judge
        if self._chosen:
            points = _finite(self._chosen)
            account["charts"] = [
                {
                    "title": f"Range test: a rate of {self._chosen['learning_rate']:.2g} is proposed",
                    "x_name": "learning rate",
                    "y_name": "loss",
                    "log_x": True,
                    "curves": {"loss": [[rate for rate, _ in points], [loss for _, loss in points]]},
                }
            ]
        return account

    def snapshot(self) -> State:
        state: State = {"training": self.training.snapshot()}
        if self._folds is not None:
            state["folds"] = self._folds.snapshot()
        if self._chosen:
            state["chosen"] = dict(self._chosen)
        if self._began:
            state["began"] = dict(self._began)
        return state

    def result(self) -> Network:
        return self.training.result()

    def _outcome(self) -> str:
        """Which epoch is the result, and the figures that decided."""
        start, best = self.training.start_figures, self.training.figures
        if not best.get("epoch") or not math.isfinite(best["val_loss"]):
            return (
                f"no epoch was better than the beginning, which is the result: loss {start.get('val_loss', math.nan):.3f} by "
                f"{self._judge}"
            )
        before = f" (before {_shown(start)})" if start else ""
        return f"epoch {best['epoch']:.0f} is the result: {_shown(best)} by {self._judge}{before}"


def _finite(chosen: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Rates and losses that can be drawn."""
    pairs = zip(chosen["rates"], chosen["losses"], strict=True)
    return [(rate, loss) for rate, loss in pairs if math.isfinite(loss)]


def _shown(figures: Mapping[str, float]) -> str:
    accuracy = f"accuracy {figures['val_accuracy']:.1f} %, " if "val_accuracy" in figures else ""
    return f"{accuracy}loss {figures['val_loss']:.3f}"

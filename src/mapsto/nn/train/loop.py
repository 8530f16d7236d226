"""The one training loop: gradient steps over items, resumable at every step.

A mapping gives a module, a loss of (module, item) and how long to go on; this file does the rest: rate, gradients, average of
the weights, running sums, validation at the end of each epoch, early stopping, and a state that holds all of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mapsto.errors import DomainError
from mapsto.kinds import Network
from mapsto.nn.kernels.compiled import compiled_kernels
from mapsto.nn.kernels.fuse import fuse, is_fusable
from mapsto.nn.kernels.malloc import keep_pages
from mapsto.nn.network.inference import compact
from mapsto.nn.train.gap import gap
from mapsto.nn.train.optimizer import Optimisation
from mapsto.nn.train.recovery import RECOVERIES, Recovery
from mapsto.process import Live, Rows, State

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Load", "Training", "TrainingPlan"]

Loss = Callable[[nn.Module, Any], Tensor]
"""(the module to call, item) → a scalar."""
Load = Callable[[nn.Module], nn.Module]
"""Puts what a training has come to into a module of the same structure, and gives it back in evaluation mode."""
Validate = Callable[[nn.Module], Mapping[str, float]]
"""A module → its metrics on held-out data; ``val_loss`` among them where the plateau or early stopping goes by it."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How long training goes on, and by what."""

    optimisation: Optimisation
    steps: int
    """Steps in all."""
    epoch: int
    """Steps of an epoch; validation comes at its end."""
    stop_after: int | None = None
    """Epochs without a better loss (validation, else training) after which it stops; the best epoch is the result."""
    lowest_rate: float = 0.0
    """It stops once a plateau has lowered the factor of the rate below this: it has converged."""
    rule: Network | None = None
    """What `Optimisation.update_rule` gives."""
    factors: Mapping[str, float] | None = None
    """Parameter → what its learning rate is multiplied by; 1 where it is not named."""
    undecayed: frozenset[str] = frozenset()
    """Parameters that do not decay."""
    goes_by: str = "val_loss"
    """The metric, the lower the better, that plateau, early stopping and the choice of the best epoch go by; the mean training loss where
    there is none of that name."""
    judge_start: bool = False
    """Whether the beginning is judged as epoch 0: it is the result where no epoch is better. It takes `stop_after`."""
    back_to_best: bool = False
    """Whether a plateau that lowers the rate also goes back to the best epoch, which undoes what too high a rate did. With `stop_after`."""
    far: float = math.inf
    """With `recover`: the loss of guessing. An epoch has diverged whose mean loss is so far above that, and above the lowest one before."""


class Training(Live[Network]):
    """A training at work.

    Parameters
    ----------
    module
        The network; its own copy, changed in place. Where training begins, with the tensors that it begins with.
    state
        A snapshot; None where training begins.
    loss
        Given the module to call and an item; every random draw comes from the global generators.
    result
        The training's result, made with a function that loads the trained tensors into a module of the same structure: the best epoch's,
        else the average, else the last.
    validate
        Run at the end of each epoch, on the average of the weights where there is one.
    mode
        Puts the module into training mode, by default the whole of it; what is frozen stays in evaluation mode.
    fused
        Whether the loss calls the module as a whole, so that on a CPU batch norm, ReLU and pooling may run in one pass.
    chosen
        What was chosen where training begins; it stays in the state.
    examples
        Figures of a module on the examples that it is trained on, for the account of the gap between training and held-out data.
    recover
        Where the loss diverges, training goes back to its last good state, at a tenth of the rate, and this is told so.

    Raises
    ------
    DomainError
        From `advance`: the loss is not finite, and there is no `recover`, or it has been of no use `RECOVERIES` times.
    """

    def __init__(
        self,
        module: nn.Module,
        state: State | None,
        *,
        plan: TrainingPlan,
        fabric: Fabric,
        loss: Loss,
        result: Callable[[Load], Network],
        validate: Validate | None = None,
        mode: Callable[[nn.Module], object] = nn.Module.train,
        fused: bool = False,
        chosen: Mapping[str, Any] | None = None,
        examples: Validate | None = None,
        recover: Callable[[str], None] | None = None,
    ) -> None:
        begins = state is None
        state = state or {}
        self._plan, self._fabric, self._loss, self._validate, self._mode = plan, fabric, loss, validate, mode
        self._result, self._examples, self._recover = result, examples, recover
        if fabric.device.type == "cpu":
            keep_pages()
        self._module = compact(module)
        if not begins:
            self._module.load_state_dict(state["tensors"])
        optimizer = plan.optimisation.make(
            self._module,
            fused=fabric.device.type == "cpu",
            rule=plan.rule,
            factors=plan.factors,
            undecayed=plan.undecayed,
        )
        fused = fused and fabric.device.type == "cpu" and not plan.optimisation.keep_statistics
        fused = fused and is_fusable(self._module) and compiled_kernels()
        self._worked = fuse(self._module, statistics="running") if fused else self._module
        """What steps are made with: the module, or one that shares its tensors."""
        self._call, self._optimizer = fabric.setup(self._worked, optimizer)
        self._restore_optimizer(state.get("optimizer", {}))
        fabric.strategy.precision.load_state_dict(state.get("precision", {}))
        self._average: nn.Module | None = None
        if plan.optimisation.ema:
            self._average = copy.deepcopy(self._module).eval().requires_grad_(False)
            if not begins:
                self._average.load_state_dict(state["average"])
        self._sum = float(state.get("sum", 0.0))
        self._skipped = int(state.get("skipped", 0))
        self._factor = float(state.get("factor", 1.0))
        self._lowest = float(state.get("lowest", math.inf))
        self._stale = int(state.get("stale", 0))
        self._since_lowered = int(state.get("since_lowered", 0))
        self._best: dict[str, Tensor] | None = state.get("best")
        self._stopped = bool(state.get("stopped", False))
        self._chosen: State = dict(chosen or {}) if begins else state.get("chosen", {})
        self.figures: dict[str, float] = dict(state.get("figures", {}))
        """Metrics of the epoch whose tensors are the result."""
        self.start_figures: dict[str, float] = dict(state.get("start_figures", {}))
        """Metrics of the beginning, where it was judged."""
        self.went_back = bool(state.get("went_back", False))
        """Whether the last plateau was followed by going back to the best epoch, and no epoch since."""
        self.step = int(state.get("step", 0))
        self.total = plan.steps
        self._recovery = Recovery(state.get("recovery", {})) if recover is not None else None
        if begins and self._recovery is not None:
            self._recovery.keep(self.held())
        if begins and plan.judge_start and validate is not None:
            self.start_figures = {"epoch": 0.0, **validate(self.judged)}
            self._judge(self.start_figures)

    @property
    def module(self) -> nn.Module:
        """What is trained: the optimiser changes its parameters in place."""
        return self._module

    def add_to_loss(self, term: Callable[[int], Tensor]) -> None:
        """Add a scalar, differentiable in the module's parameters, to the loss of every step that comes; it is given the step."""
        before = self._loss

        def loss(call: nn.Module, item: Any) -> Tensor:
            return before(call, item) + term(self.step)

        self._loss = loss

    @property
    def judged(self) -> nn.Module:
        """What validation is of: the average of the weights where there is one, else the module as it stands."""
        return self._module if self._average is None else self._average

    @property
    def epoch(self) -> int:
        """Steps of an epoch."""
        return self._plan.epoch

    def follow(self, lowered: float) -> None:
        """Take what another training's rate is multiplied by for one's own."""
        self._factor = lowered

    @property
    def lowered(self) -> float:
        """What the learning rate of the schedule is multiplied by, after plateaus and recoveries."""
        return self._factor * (1.0 if self._recovery is None else self._recovery.scale)

    @property
    def done(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all steps are done, or early stopping or convergence came first."""
        return self._stopped or self.step >= self._plan.steps

    def advance(self, item: Any) -> Rows:
        plan, optimizer = self._plan, self._optimizer
        rate = self.lowered * plan.optimisation.rate(self.step, plan.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        self._mode(self._worked)
        if plan.optimisation.keep_statistics:
            for part in self._worked.modules():
                if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                    part.eval()
        optimizer.zero_grad()
        loss = self._loss(self._call, item)
        if not loss.requires_grad:
            raise DomainError(
                f"the loss has no gradient in any parameter that is trained of the {type(self._module).__name__}",
                where=f"step {self.step + 1}",
                hint="let its scores be differentiable: no argmax, rounding or detach() on the way to them",
            )
        value = float(loss.detach())
        if self._anywhere(not math.isfinite(value)):
            return self._diverged(f"the loss is {value}", rate)
        if self._recovery is not None:
            self._recovery.begin(value)
        self._fabric.backward(loss)
        if plan.optimisation.clip is not None:
            self._fabric.clip_gradients(self._call, optimizer, max_norm=plan.optimisation.clip)
        optimizer.step()
        self._update_average()
        self.step += 1
        self._sum += value
        metrics = {"train_loss": value, "lr": rate}
        if self._ends_epoch():
            metrics.update(self._end_epoch(rate))
        return [(self.step, metrics)]

    def account(self) -> dict[str, Any]:
        """How good the result is on the examples that it is trained on, and on held-out data: `mapsto.nn.train.gap`."""
        if self._examples is None:
            return {}
        module = copy.deepcopy(self.judged)
        if self._best is not None:
            module.load_state_dict(self._best)
        return {"gap": gap(self._examples(module), self.figures, self.start_figures)}

    def snapshot(self) -> State:
        tensors = self._module.state_dict()
        state: State = {
            "step": self.step,
            "tensors": tensors,
            "optimizer": {str(index): dict(slots) for index, slots in self._optimizer.state_dict()["state"].items()},
            "precision": dict(self._fabric.strategy.precision.state_dict()),
            "sum": self._sum,
            "factor": self._factor,
            "stale": self._stale,
            "since_lowered": self._since_lowered,
            "stopped": self._stopped,
        }
        if math.isfinite(self._lowest):
            state["lowest"] = self._lowest
        if self.figures:
            state["figures"] = self.figures
        if self.went_back:
            state["went_back"] = True
        if self.start_figures:
            state["start_figures"] = self.start_figures
        if self._skipped:
            state["skipped"] = self._skipped
        if self._recovery is not None:
            state["recovery"] = self._recovery.snapshot()
        if self._average is not None:
            state["average"] = self._average.state_dict()
        if self._best is not None:
            state["best"] = self._best
        if self._chosen:
            state["chosen"] = self._chosen
        return state

    def result(self) -> Network:
        return self._result(self._load)

    def _load(self, module: nn.Module) -> nn.Module:
        """Put the best epoch's tensors, else the average, else the last into `module`."""
        module.load_state_dict(self._best or self.judged.state_dict())
        return module.eval()

    def _restore_optimizer(self, slots: Mapping[str, Mapping[str, Any]], *, anew: bool = False) -> None:
        """Give the optimiser its moments; with `anew` it forgets them where there are none."""
        if not slots and not anew:
            return
        whole = self._optimizer.state_dict()
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        whole["state"] = {
            int(index): {name: _laid_out_as(parameters[int(index)], value) for name, value in values.items()}
            for index, values in slots.items()
        }
        self._optimizer.load_state_dict(whole)

    def _update_average(self) -> None:
        if self._average is None:
            return
        decay = min(self._plan.optimisation.ema, (1 + self.step) / (10 + self.step))
        current = self._module.state_dict()
        with torch.no_grad():
            for name, mean in self._average.state_dict().items():
                if mean.is_floating_point():
                    mean.lerp_(current[name], 1 - decay)
                else:
                    mean.copy_(current[name])

    def _ends_epoch(self) -> bool:
        return self.step % self._plan.epoch == 0 or self.step == self._plan.steps

    def _end_epoch(self, rate: float) -> dict[str, float]:
        plan = self._plan
        epoch = math.ceil(self.step / plan.epoch)
        mean = self._sum / (self.step - (epoch - 1) * plan.epoch - self._skipped)
        self._sum, self._skipped = 0.0, 0
        if self._recovery is not None:
            broken = not all(bool(tensor.isfinite().all()) for tensor in self._module.state_dict().values())
            if self._anywhere(broken or mean > max(self._recovery.lowest, plan.far) + plan.far):
                why = "a weight is no number" if broken else f"the mean loss of an epoch is {mean:.3g}"
                self._go_back(why, rate)
                return {}
            self._recovery.keep(self.held(), mean)
        metrics = {"epoch": float(epoch), "epoch_train_loss": mean}
        if self._validate is not None:
            metrics.update(self._validate(self.judged))
        self._judge(metrics)
        return metrics

    def _judge(self, metrics: Mapping[str, float]) -> None:
        """Keep the best, lower the rate on a plateau, and see whether training has come to its end."""
        plan, self.went_back = self._plan, False
        loss = metrics.get(plan.goes_by, metrics.get("epoch_train_loss", math.inf))
        better = loss < self._lowest - 1e-4 * abs(self._lowest if math.isfinite(self._lowest) else 0.0)
        self._stale = 0 if better else self._stale + 1
        self._since_lowered = 0 if better else self._since_lowered + 1
        if better:
            self._lowest = loss
            if plan.stop_after is not None:
                self._best = {name: tensor.detach().clone() for name, tensor in self.judged.state_dict().items()}
        if better or plan.stop_after is None:
            self.figures = {name: value for name, value in metrics.items() if name.startswith(("val_", "epoch"))}
        if plan.optimisation.schedule == "plateau" and self._since_lowered >= plan.optimisation.patience:
            self._factor, self._since_lowered = self._factor / 10, 0
            self.went_back = plan.back_to_best and self._best is not None
            if self.went_back:
                self.take_up({"tensors": self._best, "average": self._best, "optimizer": {}})
        if plan.stop_after is not None and self._stale >= plan.stop_after:
            self._stopped = True
        if self._factor < plan.lowest_rate:
            self._stopped = True

    # -- divergence

    def _anywhere(self, here: bool) -> bool:
        """Whether it is so in any of the processes that train together."""
        if self._fabric.world_size == 1 or self._recovery is None:
            return here
        return bool(self._fabric.all_reduce(torch.tensor(float(here), device=self._fabric.device)) > 0)  # pyright: ignore[reportOperatorIssue]

    def _diverged(self, why: str, rate: float) -> Rows:
        """A step whose loss is no number: an error, or back to the last good state; nothing is learnt from its item."""
        self._go_back(why, rate)
        self.step += 1
        self._sum, self._skipped = 0.0, self.step % self._plan.epoch
        metrics = {"lr": rate}
        return [(self.step, metrics)]

    def _go_back(self, why: str, rate: float) -> None:
        """Take up the last good state at a lower rate. Raises `DomainError` where that is not wanted, or has not helped."""
        recovery, where = (
            self._recovery,
            f"training diverged at step {self.step}: {why} at a learning rate of {rate:.3g}",
        )
        if recovery is None or self._recover is None or recovery.count >= RECOVERIES:
            raise DomainError(
                where, hint="lower learning_rate, set clip (1.0, say), or look for extreme values in the data"
            )
        good = recovery.back()
        self.take_up(good)
        self._recover(f"{where}; it goes on from its state of step {good['step']}, at a tenth of that rate")

    def take_up(self, held: State) -> None:
        """Go on from what was held, at the rate of now."""
        self._module.load_state_dict(held["tensors"])
        self._restore_optimizer(held["optimizer"], anew=True)
        if self._average is not None:
            self._average.load_state_dict(held["average"])

    def held(self) -> State:
        """What there is to go back to: the tensors, the optimiser's moments, and the average of the weights."""
        held: State = {
            "step": self.step,
            "tensors": self._module.state_dict(),
            "optimizer": {str(index): dict(slots) for index, slots in self._optimizer.state_dict()["state"].items()},
        }
        if self._average is not None:
            held["average"] = self._average.state_dict()
        return copy.deepcopy(held)


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """`value` with the strides of its parameter: a fused optimiser walks through both as they lie in memory."""
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return torch.empty_like(parameter, requires_grad=False).copy_(value)
    return value

"""Train on inputs that an adversary has moved against the network, so that small changes of an input no longer change its answer.

``θ ← θ − η ∇_θ ℓ(f_θ(x + δ), y)`` with δ by one step from a random start (`fast`: Wong, Rice and Kolter, "Fast is Better than Free", 2020),
by one step (`fgsm`: Goodfellow et al., 2015), by several (`pgd`: Madry et al., 2018), by the gradients of the steps before (`free`: Shafahi
et al., 2019), or ``ℓ(f(x), y) + β KL(f(x) ‖ f(x + δ))`` (`trades`: Zhang et al., "Theoretically Principled Trade-off between Robustness
and Accuracy", 2019).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import Augmentations
from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.robust.radius import Attacked, Radius, require_attackable
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import nn

    from mapsto.nn.edits.head import Head
    from mapsto.nn.robust.training import AdversarialLoss, Repeated
    from mapsto.nn.robust.validation import Judge
    from mapsto.nn.train.batches import Batches
    from mapsto.nn.train.loop import Load, Training

__all__ = ["Adversarial"]


class Adversarial(Attacked, Optimisation, Process[Network, Network]):
    """A classifier trained on `data` as an adversary moves them; its head is replaced where the data's classes are not the network's.

    Accuracy falls where robustness rises. Give `validation`: the result is then the epoch of the highest robust accuracy on it, which
    rises and falls again in a long training (Rice, Wong and Kolter, "Overfitting in Adversarially Robust Deep Learning", 2020).

    >>> from mapsto import datasets, evaluate, networks, train
    >>> digits = datasets.subset(data=datasets.digits(size=8), per_class=20)
    >>> fresh = networks.conv4(data=digits, width=4, blocks=1, classes="data")(seed=0)
    >>> fields = {"data": digits, "epochs": 8, "batch_size": 50}
    >>> usual, robust = train.supervised(**fields)(fresh), train.adversarial(**fields, epsilon=0.1)(fresh)
    >>> attack = evaluate.robustness(data=digits, samples=100, epsilon=0.1, attacks=["pgd"], curve=())
    >>> found = [attack(network).metrics["pgd"].value for network in (usual, robust)]
    >>> found[1] > found[0] + 15
    True
    """

    version: ClassVar[int] = 2
    data: DataSource
    """What to learn from: images as bytes or from 0 to 1, or rows, with one class each."""
    validation: DataSource | None = None
    """Held-out data: 512 of them are attacked by PGD-10 at the end of each epoch, and the best epoch is the result."""
    method: Literal["fast", "fgsm", "pgd", "free", "trades"] = "fast"
    """`fast` costs two passes a step, `pgd` and `trades` as many as `steps` and one or two more, `free` one."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the data; with `free`, each batch of a pass is stepped on `replays` times."""
    batch_size: int = Field(default=128, ge=1)
    """Samples of a step."""
    steps: int = Field(default=10, ge=1)
    """Steps of the attack of `pgd` and `trades`; 7 to 10 are usual."""
    step_size: Radius | None = None
    """Length of a step of the attack; by default ε for `fgsm` and `free`, 1.25 ε for `fast`, ε / 4 for `pgd` and `trades`."""
    replays: int = Field(default=8, ge=1)
    """Steps on one batch with `free`; 8 in the paper, which has an eighth of the epochs."""
    beta: float = Field(default=6.0, gt=0)
    """Weight of robustness against accuracy with `trades`; 6 in the paper."""
    stop_after: int | None = Field(default=5, ge=1)
    """With `validation`: epochs without a better robust accuracy after which it stops. None: it never does, and the last is the result."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its samples."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes."""
    augment: Augmentations = ()
    """Random changes of each sample before it is attacked, in order; none that mixes samples."""

    contract: ClassVar[dict[str, Any]] = {"method": "free", "replays": 2}

    def items(self, value: Network, ctx: Context) -> Batches | Repeated:
        from mapsto.nn.robust.training import Repeated
        from mapsto.nn.train.batches import Batches

        samples = self._samples(value, ctx)
        batches = Batches(samples, self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)
        return Repeated(batches, self.replays) if self.method == "free" else batches

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        from mapsto.nn.robust.training import FreeLoss, FreeTraining
        from mapsto.nn.train.loop import Training, TrainingPlan

        samples = self._samples(value, ctx)
        epoch = self.items(value, ctx).per_epoch
        held_out = self.validation is not None
        plan = TrainingPlan(
            optimisation=self,
            rule=self.update_rule(ctx),
            steps=self.epochs * epoch,
            epoch=epoch,
            stop_after=self.stop_after if held_out else None,
            goes_by="val_robust_error" if held_out else "epoch_train_loss",
        )
        loss, module = self._loss(value, samples, ctx), self._headed(value, samples)[0]
        rest: dict[str, Any] = {
            "plan": plan,
            "fabric": ctx.fabric,
            "result": partial(self._result, value, samples),
            "validate": self._judge(value, samples, ctx),
            "fused": True,
        }
        if self.method == "free":
            return FreeTraining(module, state, loss=FreeLoss(loss), **rest)
        return Training(module, state, loss=loss, **rest)

    def _loss(self, value: Network, samples: Samples, ctx: Context) -> AdversarialLoss:
        from mapsto.nn.robust.threat import Threat
        from mapsto.nn.robust.training import AdversarialLoss
        from mapsto.nn.train.augmenter import Augmenter
        from mapsto.nn.train.class_weights import weights_of
        from mapsto.nn.train.losses import classification

        weights = weights_of(samples, self.class_weights, ctx)
        return AdversarialLoss(
            method=self.method,
            threat=partial(Threat, self.norm, self.epsilon),
            loss=partial(classification, weights=weights, smoothing=self.smoothing),
            preprocessing=value.signature.preprocessing,
            augmenter=Augmenter(self.augment, ctx, samples),
            steps=self.steps,
            step=self.step_size,
            beta=self.beta,
        )

    def _judge(self, value: Network, samples: Samples, ctx: Context) -> Judge:
        """What is looked at after each epoch: held-out samples, else such as are trained on."""
        from mapsto.nn.robust.threat import Threat
        from mapsto.nn.robust.validation import Judge

        held_out = None if self.validation is None else self._checked(value, ctx.dataset(self.validation), "validation")
        return Judge(
            samples=samples if held_out is None else held_out,
            preprocessing=value.signature.preprocessing,
            threat=partial(Threat, self.norm, self.epsilon),
            prefix="train_" if held_out is None else "val_",
            device=ctx.device,
            overfitted=ctx.warn,
            seed=ctx.seed_for("judge"),
        )

    def _result(self, value: Network, samples: Samples, load: Load) -> Network:
        from mapsto.nn.network.build import taking, with_output

        module, edit = self._headed(value, samples)
        signature = with_output(taking(value.signature, samples), len(samples.classes), samples.classes)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)

    def _samples(self, value: Network, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting

        samples = self._checked(value, ctx.dataset(self.data), "data")
        require_fitting(self.augment, samples, where=f"{self.name}: augment")
        mixing = [operation.name for operation in self.augment if operation.mixes]
        if mixing:
            raise DomainError(
                f"{mixing[0]} mixes samples, and an attack is against one class",
                where=f"{self.name}: augment",
                hint="leave it out",
            )
        return samples

    def _checked(self, value: Network, samples: Samples, field: str) -> Samples:
        """Raises `DataError` or `DomainError` where there is nothing to attack."""
        from mapsto.data.checks import require_classes, require_finite, require_some

        where = f"{self.name}: {field}"
        self.require_epsilon(value.signature, where=self.name)
        require_attackable(value, where=self.name, headless=True)
        require_finite(require_some(samples, where=where).inputs, where=where)
        return require_classes(samples, where=where) if field == "data" else samples

    def _headed(self, value: Network, samples: Samples) -> tuple[nn.Module, Head | None]:
        from mapsto.nn.network.head import headed

        module = value.module()
        edit, _ = headed(value, module, samples.classes)
        return module, edit

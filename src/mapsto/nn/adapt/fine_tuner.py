"""How fine-tuning is put together: where it begins, its learning rate, its folds, and the training itself."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mapsto.errors import DomainError
from mapsto.kinds import Network, Samples
from mapsto.nn.adapt import logistic
from mapsto.nn.adapt.batch_norm_reestimation import reestimate
from mapsto.nn.adapt.blocks import blocks_of
from mapsto.nn.adapt.fine_tuning import FineTuning, Objective, range_test
from mapsto.nn.adapt.fold_training import FoldTraining, FoldTrainings, folds_to_train
from mapsto.nn.adapt.layer_rates import layer_rates
from mapsto.nn.adapt.probe import balancing, centroid_head, probed
from mapsto.nn.edits._adapted_layer import adapter_parameters
from mapsto.nn.network.build import taking, with_output
from mapsto.nn.network.examples import example_batch
from mapsto.nn.network.head import fits, head, headed, set_head
from mapsto.nn.network.inference import embeddings
from mapsto.nn.train.augmenter import Augmenter
from mapsto.nn.train.batches import Batches
from mapsto.nn.train.class_weights import weights_of
from mapsto.nn.train.gap import on_examples
from mapsto.nn.train.loop import Load, Training, TrainingPlan
from mapsto.nn.train.metrics import class_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapsto.context import Context
    from mapsto.data.augment import Augmentation
    from mapsto.mappings.adapt.finetune import Finetune
    from mapsto.nn.edits.head import Head
    from mapsto.nn.train.optimizer import Optimisation
    from mapsto.process import State

__all__ = ["FineTuner"]

Validate = Callable[[nn.Module], dict[str, float]]


class FineTuner:
    """Makes the trainings of one fine-tuning.

    Parameters
    ----------
    fields
        The mapping; its augmentations are chosen already.
    value
        The network that it is applied to.
    samples
        All labelled examples.
    """

    def __init__(self, fields: Finetune, value: Network, samples: Samples, ctx: Context) -> None:
        self._fields, self._value, self._samples, self._ctx = fields, value, samples, ctx
        self._classes = len(samples.classes)
        self._preprocessing = value.signature.preprocessing
        if fields.unfreeze and ctx.fabric.world_size > 1:
            raise DomainError(
                "blocks cannot be unfrozen one after another in several processes",
                hint="leave unfreeze out, or use one",
            )

    def begun(self) -> FineTuning:
        """Where it begins: statistics, heads and the learning rate are found."""
        fields, ctx, module = self._fields, self._ctx, self._headed()[0]
        if fields.batch_norm == "reestimate":
            inputs = self._samples.inputs
            reestimate(module.to(ctx.device), inputs, self._preprocessing, prior=fields.batch_norm_prior)
        modules = [copy.deepcopy(module) for _ in self._fold_places]
        kept = fits(self._value, self._value.module(), self._samples.classes)
        if not kept or modules:
            features = embeddings(module, self._samples.inputs, self._preprocessing, device=ctx.device).numpy()
            strength = self._strength(features) if fields.begin == "probe" else 1.0
            for part, rows in zip(modules, self._learnt, strict=True):
                self._fit_head(part, features[rows], self._samples.labels[rows], strength)
            if not kept or self._outdone(module, modules, features):
                self._fit_head(module, features, self._samples.labels, strength)
        chosen = self._range_test(module) if fields.learning_rate == "auto" else {}
        return self._assembled(module, modules, chosen, {})

    def resumed(self, state: State) -> FineTuning:
        """As a snapshot has it."""
        modules = [self._headed()[0] for _ in self._fold_places]
        return self._assembled(self._headed()[0], modules, state.get("chosen", {}), state)

    def _assembled(self, module: nn.Module, modules: list[nn.Module], chosen: State, state: State) -> FineTuning:
        ctx, fields = self._ctx, self._fields
        kept = state.get("folds", {})
        states = kept.get("parts") or [None] * len(modules)
        parts = [
            self._fold(fold, learn, judge, chosen, own)
            for fold, (learn, judge), own in zip(modules, self._fold_places, states, strict=True)
        ]
        folds = FoldTrainings(parts, self._preprocessing, kept.get("best")) if parts else None
        validate: Validate | None = None
        if folds is not None:
            validate = folds.validate
        elif fields.validation is not None:
            held = ctx.dataset(fields.validation)
            validate = lambda module: class_metrics(module, held, self._preprocessing, device=ctx.device)  # noqa: E731
        judge = str(folds) if folds is not None else "the validation data" if validate is not None else ""
        examples = on_examples(self._samples, self._preprocessing, device=ctx.device)
        began: dict[str, float] = state["began"] if "began" in state else {} if judge else examples(module)
        plan = dataclasses.replace(
            self._plan(module, self._samples, self._at(chosen)),
            stop_after=fields.stop_after,
            lowest_rate=0.9e-3,
            judge_start=validate is not None,
            back_to_best=validate is not None,
        )
        training = Training(
            module,
            state.get("training"),
            plan=plan,
            fabric=ctx.fabric,
            loss=self._objective(module, self._samples),
            result=self._result,
            validate=validate,
            mode=fields.train_mode,
            examples=examples,
            recover=ctx.warn,
        )
        return FineTuning(training, folds, judge=judge, chosen=chosen, began=began, note=ctx.note, warn=ctx.warn)

    # -- trainings

    def _fold(
        self, module: nn.Module, learn: NDArray[Any], judge: NDArray[Any], chosen: State, state: State | None
    ) -> FoldTraining:
        """The training on what lies outside a fold, at the rate of the one on all examples."""
        samples, optimisation = self._samples.take(learn), self._at(chosen)
        if optimisation.schedule == "plateau":
            optimisation = dataclasses.replace(optimisation, schedule="constant")
        training = Training(
            module,
            state,
            plan=self._plan(module, samples, optimisation),
            fabric=self._ctx.fabric,
            loss=self._objective(module, samples),
            result=self._result,
            mode=self._fields.train_mode,
            recover=lambda _: None,
        )
        return FoldTraining(training, self._batches(samples, "order"), self._samples.take(judge))

    def _plan(self, module: nn.Module, samples: Samples, optimisation: Optimisation) -> TrainingPlan:
        """What trainings on all examples and outside a fold have in common; parameters that are not trained are frozen."""
        self._freeze(module)
        epoch = self._batches(samples, "order").per_epoch
        return TrainingPlan(
            optimisation=optimisation,
            rule=self._fields.update_rule(self._ctx),
            steps=self._fields.epochs * epoch,
            epoch=epoch,
            factors=self._factors,
            undecayed=frozenset(self._pretrained),
            far=math.log(self._classes),
        )

    def _freeze(self, module: nn.Module) -> None:
        """Freeze what the fields say. Raises `DomainError` where only adapters are to learn, and there are none."""
        kept, last = self._fields.freeze, head(module)
        if kept == "none" or (kept == "embedding" and last is None):
            return
        adapters = [module.get_parameter(name) for name in adapter_parameters(module)]
        if kept == "weights" and not adapters:
            raise DomainError(
                "freeze is weights, but the network has no adapters that could learn instead",
                where="adapt.finetune",
                hint="put adapt.lora before it, or dora, ia3, bitfit, ssf, adapters or prompts",
            )
        module.requires_grad_(False)
        for parameter in (*(adapters if kept == "weights" else ()), *(last.parameters() if last is not None else ())):
            parameter.requires_grad_(True)

    def _objective(self, module: nn.Module, samples: Samples) -> Objective:
        fields = self._fields
        return Objective(
            module=module,
            augmenter=Augmenter(cast("Sequence[Augmentation]", fields.augment), self._ctx, samples),
            preprocessing=self._preprocessing,
            weights=weights_of(self._samples, fields.class_weights, self._ctx),
            smoothing=fields.smoothing,
            l2_sp=fields.l2_sp,
            pretrained={name: self._value.tensors[name] for name in self._pretrained},
            adversarial=fields.adversarial,
            blocks=self._blocks if fields.unfreeze else [],
            unfreeze=fields.unfreeze * self._batches(samples, "order").per_epoch if fields.freeze == "none" else 0,
        )

    def _range_test(self, module: nn.Module) -> State:
        test = range_test(
            module,
            lambda trial: dataclasses.replace(self._objective(trial, self._samples), unfreeze=0),
            self._batches(self._samples, "range test"),
            optimisation=self._at({}),
            factors=self._factors,
            mode=self._fields.train_mode,
            fabric=self._ctx.fabric,
            track=lambda work: self._ctx.track(work, what="range test"),
        )
        self._ctx.note(f"the learning rate is {test.proposed:.2g}, by a range test")
        return {"learning_rate": test.proposed, "rates": test.rates, "losses": test.losses}

    def _at(self, chosen: State) -> Optimisation:
        """The fields with the learning rate that was chosen, where one was."""
        if self._fields.learning_rate != "auto":
            return self._fields
        return dataclasses.replace(self._fields, learning_rate=chosen.get("learning_rate", 1e-3))

    def _batches(self, samples: Samples, purpose: str) -> Batches:
        ctx = self._ctx
        return Batches(samples, self._fields.batch_size, lambda epoch: ctx.random(purpose, epoch), ctx.fabric)

    # -- the network

    @cached_property
    def _blocks(self) -> list[tuple[str, ...]]:
        return blocks_of(self._headed()[0], example_batch(self._value))

    @cached_property
    def _factors(self) -> dict[str, float] | None:
        decay = self._fields.layer_decay
        return layer_rates(self._blocks, decay) if decay < 1 else None

    @cached_property
    def _pretrained(self) -> list[str]:
        """The parameters that L2-SP keeps near: all that are trained but the head's."""
        if not self._fields.l2_sp or self._fields.freeze != "none":
            return []
        return [name for block in self._blocks[:-1] for name in block]

    @cached_property
    def _fold_places(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Places to learn from and to judge by; none where something else judges."""
        fields = self._fields
        if fields.validation is not None or fields.folds is None:
            return []
        return folds_to_train(self._samples.labels, fields.folds)

    @property
    def _learnt(self) -> list[NDArray[Any]]:
        return [learn for learn, _ in self._fold_places]

    def _headed(self) -> tuple[nn.Module, Head | None]:
        module = self._value.module()
        edit, _ = headed(self._value, module, self._samples.classes, dropout=self._fields.dropout)
        return module, edit

    def _strength(self, features: NDArray[Any]) -> float:
        """C of the probe, by cross-validation on embeddings (N, D) of all examples."""
        labels = self._samples.labels
        weights = self._example_weights(labels)
        strength, _ = logistic.chosen(features, labels, self._classes, self._ctx.random("probe"), weights=weights)
        self._ctx.note(f"the head begins as logistic regression with C = {strength:g}, by cross-validation")
        return strength

    def _example_weights(self, labels: NDArray[Any]) -> NDArray[Any] | None:
        return balancing(labels, self._classes) if self._fields.class_weights == "balanced" else None

    def _fit_head(self, module: nn.Module, features: NDArray[Any], labels: NDArray[Any], strength: float) -> None:
        """Fit the head to embeddings (N, D)."""
        if self._fields.begin == "centroid":
            set_head(module, *centroid_head(torch.as_tensor(features), labels, self._classes))
        elif self._fields.begin == "probe":
            weights = self._example_weights(labels)
            set_head(module, *probed(features, labels, self._classes, strength, weights=weights))

    def _outdone(self, module: nn.Module, modules: Sequence[nn.Module], features: NDArray[Any]) -> bool:
        """Whether the head that the network has is worse on these examples than heads fitted anew are on folds they have not seen.

        It was made for others then, as for those of another domain, and what the folds say would not hold for it. A head that has seen
        these examples is flattered by the comparison and stays.
        """
        if self._fields.begin == "random":
            return False
        labels = self._samples.labels
        judged = [judge for _, judge in self._fold_places]
        everything = np.concatenate(judged)
        own = _loss(module, features[everything], labels[everything])
        losses = [_loss(part, features[rows], labels[rows]) for part, rows in zip(modules, judged, strict=True)]
        anew = float(np.average(losses, weights=[len(rows) for rows in judged]))
        if own <= anew:
            return False
        self._ctx.note(
            f"the head that the network had is replaced by a new one: its loss on these examples is {own:.3f}, that of new heads on "
            f"held-out ones {anew:.3f}"
        )
        return True

    def _result(self, load: Load) -> Network:
        value, samples = self._value, self._samples
        module, edit = self._headed()
        signature = with_output(taking(value.signature, samples), self._classes, samples.classes)
        return value.with_module(load(module), *([edit] if edit else []), signature=signature, adaptation=None)


def _loss(module: nn.Module, features: NDArray[Any], labels: NDArray[Any]) -> float:
    """The mean cross-entropy that the head of `module` has on embeddings (N, D) of classes (N,)."""
    last = head(module)
    if last is None:
        raise DomainError("the network has no head", where="adapt.finetune", hint="give it one first")
    with torch.no_grad():
        scores = last(torch.as_tensor(features, device=last.weight.device))
    return float(cross_entropy(scores, torch.as_tensor(labels, device=scores.device).long()))

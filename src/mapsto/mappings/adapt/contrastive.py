"""Tune the top layers of a text encoder so that texts of a class lie together, and average its answers with the frozen encoder's.

``−mean_i 1/|P(i)| Σ_{p ∈ P(i)} log exp(z_i · z_p / τ) / Σ_{a ≠ i} exp(z_i · z_a / τ)`` with P(i) the others of i's class in a batch
(Khosla et al., "Supervised Contrastive Learning", 2020), over hidden states of the layers below, which are computed once. Then a logistic
regression is fitted to the tuned embedding; its scores and those of one over the frozen embedding are averaged, since what few texts have
taught errs elsewhere than what pretraining has (Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", 2022). Tuning all layers on
pairs, as SetFit does (Tunstall et al., "Efficient Few-Shot Learning Without Prompts", 2022), takes many times as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mapping import DataSource
from mapsto.nn.train.language.contract_encoder import contract_encoder, contract_texts
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from mapsto.nn.adapt.contrastive_tuning import BalancedBatches
    from mapsto.nn.adapt.examples import Examples
    from mapsto.nn.adapt.label_names import NamedClasses
    from mapsto.nn.train.loop import Training

__all__ = ["Contrastive"]


class Contrastive(Optimisation, Process[Network, Network]):
    """A classifier of texts for the classes of `data`: an encoder with a tuned branch beside the frozen one, over shared lower layers."""

    version: ClassVar[int] = 1

    data: DataSource
    """The labelled texts, at least one of each class."""
    layers: int = Field(default=3, ge=1)
    """How many layers are tuned, the top ones; at least one stays below."""
    epochs: int = Field(default=8, ge=1)
    """How often as many texts are seen as there are; of some thousand texts two are enough."""
    batch_size: int = Field(default=512, ge=4)
    """Texts of a step, about; the more, the more classes are told apart at once. With 5 labels of Banking77's classes, on texts of its
    training part, all of them at once were better than a third by 1 to 2 points, in the same time."""
    of_class: int = Field(default=6, ge=2)
    """Texts of each class in a batch."""
    temperature: float = Field(default=0.1, gt=0)
    """τ: the smaller, the more the nearest texts of other classes count; 0.1 in the paper."""
    label_names: Literal["auto", "use", "leave_out"] = "auto"
    """Whether the name of each class, made readable, is one more text of it, as in `adapt.best`."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other in the head. Batches are balanced anyway."""
    answer: Literal["averaged", "tuned"] = "averaged"
    """Whether the network answers with the average of both, or with the tuned branch alone, which is no larger than the encoder was."""
    share: float = Field(default=0.5, gt=0, lt=1)
    """With `averaged`: the share of the tuned branch's scores."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adamw"
    """`adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest learning rate of the schedule."""
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = "onecycle"
    """`onecycle` rises from 1/25 of the rate over 30 % of the steps and then falls, `cosine` falls from the beginning."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay of the weights."""

    contract: ClassVar[dict[str, Any]] = {"data": contract_texts(), "layers": 1}
    contract_input: ClassVar[Any] = staticmethod(contract_encoder)

    def items(self, value: Network, ctx: Context) -> BalancedBatches:
        return self._batches(*self._texts(value, ctx), ctx)

    def open(self, value: Network, state: State | None, ctx: Context) -> Training:
        """Raises `DataError` for fewer than two classes or an empty one, `DomainError` where the network is no text encoder."""
        from mapsto.nn.adapt.contrastive_tuning import tuning

        examples, names = self._texts(value, ctx)
        return tuning(self, value, examples, names, self._batches(examples, names, ctx), state, ctx)

    def _texts(self, value: Network, ctx: Context) -> tuple[Examples, NamedClasses | None]:
        from mapsto.nn.adapt.examples import examples_of
        from mapsto.nn.adapt.label_names import used_names
        from mapsto.nn.train.language.encoder_parts import encoder_of

        encoder_of(value, where=self.name)
        with ctx.giving(value):
            examples = examples_of(value, self.data, ctx, where=self.name, class_weights=self.class_weights)
        if self.label_names == "leave_out":
            return examples, None
        return examples, used_names(value, examples, ctx, judged=self.label_names == "auto")

    def _batches(self, examples: Examples, names: NamedClasses | None, ctx: Context) -> BalancedBatches:
        from mapsto.nn.adapt.contrastive_tuning import BalancedBatches
        from mapsto.nn.adapt.label_names import with_names

        _, labels, _ = with_names(examples, names)
        return BalancedBatches(
            labels=labels,
            batch_size=self.batch_size,
            of_class=self.of_class,
            generator=lambda number: ctx.random("order", number),
        )

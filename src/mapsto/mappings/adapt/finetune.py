"""Train on a few labelled examples from a small learning rate, and stop when examples that were held out say so.

``min_θ mean_i −log softmax(f_θ(x_i))[y_i] + λ‖θ‖²`` by Adam from η = 10⁻³, the rate tenfold lower whenever the loss stalls, and from a
head that was fitted to the frozen embedding (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution", 2022); the epoch with the lowest held-out loss is the result, the beginning among them. Batch norm keeps the
statistics it was trained with: those of a few examples are too noisy. Each remedy against over-fitting is a field.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mapsto.context import Context
from mapsto.data.augment import AugmentationsOrAuto
from mapsto.kinds import Network, Samples
from mapsto.mapping import DataSource
from mapsto.nn.train.optimizer import Optimisation
from mapsto.process import Process, State

if TYPE_CHECKING:
    from torch import nn

    from mapsto.nn.adapt.fine_tuning import FineTuning
    from mapsto.nn.train.batches import Batches

__all__ = ["Finetune"]


class Finetune(Optimisation, Process[Network, Network]):
    """A classifier for the classes of `data`, all of it or only its head trained.

    >>> from mapsto import datasets, networks
    >>> few = datasets.subset(data=datasets.digits(size=16), per_class=5)
    >>> network = networks.conv4(data=few, width=8)(seed=0)
    >>> Finetune(data=few, epochs=1)(network, seed=0).signature.outputs[0].shape
    ('N', 10)
    """

    version: ClassVar[int] = 4

    data: DataSource
    """The labelled examples, at least one of each class."""
    validation: DataSource | None = None
    """Held-out examples by which the rate is lowered and the best epoch chosen; without any `folds` decide."""
    folds: Annotated[int, Field(ge=2)] | None = 3
    """Without `validation`: so many folds of `data`, each trained without and judged by as training goes on, until 200 examples are
    judged; that takes up to this many times as long. None, and where no class has two examples: the training loss lowers the rate, and the
    last epoch is the result."""
    epochs: int = Field(default=100, ge=1)
    """At most so many passes over the data."""
    batch_size: int = Field(default=32, ge=1)
    """Samples of a step."""
    freeze: Literal["none", "embedding", "weights"] = "none"
    """`embedding`: only the head is trained; `weights`: only the head and what `adapt.lora`, `dora`, `ia3`, `bitfit`, `ssf`, `adapters` or
    `prompts` has added or marked."""
    begin: Literal["probe", "centroid", "random"] = "probe"
    """A new head's first weights: logistic regression on the embeddings with C by cross-validation (LP-FT), each class's mean embedding,
    or random. A head for the same classes is kept, but for one that does worse on `data` than new heads do on folds they have not seen."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the embedding dropped in training."""
    stop_after: int = Field(default=15, ge=1)
    """Early stopping: epochs without a better loss after which it ends."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: each class weighs as much as any other, however few its examples."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the label that is spread over all classes."""
    augment: AugmentationsOrAuto = ()
    """Random changes of each sample, in order; `auto`: chosen by the examples, by cross-validation on embeddings of changed copies."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """ξ: each block's rate is this times that of the block above it, the head's the learning rate; 0.65 to 0.85 in BEiT (Bao et al.,
    2022), 0.38 in ULMFiT (Howard and Ruder, 2018); 1: all alike."""
    l2_sp: float = Field(default=0.0, ge=0)
    """α of L2-SP, a penalty ``α/2 ‖w − w⁰‖²`` towards the pretrained weights, which then do not decay towards 0; 0.1 and 0.01 in Li et
    al., 2018."""
    unfreeze: int = Field(default=0, ge=0)
    """Gradual unfreezing: epochs after which one block more learns, from the head down (Howard and Ruder, 2018, with 1); 0: all from
    the beginning."""
    batch_norm: Literal["keep", "reestimate", "train"] = "keep"
    """Statistics of batch norms: those of the pretraining; blended before training with those of `data`, by the number of examples
    (Schneider et al., 2020); or running on, normalised by each batch, as in training from scratch."""
    batch_norm_prior: int = Field(default=256, ge=0)
    """With `reestimate`: as many examples the statistics of the pretraining count."""
    adversarial: float = Field(default=0.0, ge=0, lt=1)
    """ε: half of the loss is of examples moved by up to this where it hurts most, in units of pixels from 0 to 1, of other inputs in
    their own (Goodfellow et al., 2015; from a random start, Wong et al., 2020); 8/255 for images that are attacked; 0: none."""
    optimizer: Literal["sgd", "adam", "adamw", "learned"] = "adam"
    """`sgd` has Nesterov momentum; `adam` and `adamw` take betas (0.9, 0.999); `learned` runs `rule`."""
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = 1e-3  # pyright: ignore[reportIncompatibleVariableOverride]
    """Where the learning rate begins; `auto`: by a range test of up to 49 steps (Smith, 2017), which the report shows."""
    schedule: Literal["cosine", "onecycle", "constant", "plateau"] = "plateau"
    """`plateau` divides the rate by 10 after `patience` epochs without a better loss, and goes on from the best epoch; it has converged at
    a thousandth."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """λ, the L2 penalty of the weights."""

    def items(self, value: Network, ctx: Context) -> Batches:
        from mapsto.nn.train.batches import Batches

        return Batches(self._samples(ctx), self.batch_size, lambda epoch: ctx.random("order", epoch), ctx.fabric)

    def open(self, value: Network, state: State | None, ctx: Context) -> FineTuning:
        """Raises `DomainError` where blocks are to be unfrozen in several processes."""
        from mapsto.nn.adapt.augment_policy import operations_for
        from mapsto.nn.adapt.fine_tuner import FineTuner

        samples = self._samples(ctx)
        chosen = operations_for(self.augment, value, samples, ctx, where="adapt.finetune")
        tuner = FineTuner(dataclasses.replace(self, augment=chosen), value, samples, ctx)
        return tuner.begun() if state is None else tuner.resumed(state)

    def _samples(self, ctx: Context) -> Samples:
        from mapsto.data.augment._apply import require_fitting
        from mapsto.data.checks import require_classes, require_finite

        samples = require_classes(ctx.dataset(self.data), where="adapt.finetune")
        require_finite(samples.inputs, where="adapt.finetune: data")
        require_fitting(self.augment, samples, where="adapt.finetune: augment")
        return samples

    def train_mode(self, module: nn.Module) -> None:
        """Put only what is trained, and batch norms only where they run on, into training mode."""
        from torch.nn.modules.batchnorm import _BatchNorm

        from mapsto.nn.network.head import head

        module.train(self.freeze != "embedding")
        if self.batch_norm != "train":
            for part in module.modules():
                if isinstance(part, _BatchNorm):
                    part.eval()
        last = head(module)
        if last is not None:
            last.train()
